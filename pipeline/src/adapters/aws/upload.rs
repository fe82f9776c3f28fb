//! A large object, part by part: pieces are gathered to parts that S3 takes, and what fits one part
//! becomes a plain put.

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};

use super::classify::Fault;
use super::objects::{S3Objects, pinned};
use crate::core::item::Pin;
use crate::ports::objects::Upload;
use crate::ports::{Objects as _, ObjectsError};

/// What a part holds at least, but for the last: above the 5 MiB that S3 asks for, and with
/// [`PARTS_MAX`] parts enough for 80 GB.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// "Amazon S3 multipart upload limits".
const PARTS_MAX: i32 = 10_000;

/// An object being written. S3 knows of it from the first full part on; one that is dropped without
/// [`Upload::abort`] leaves its parts there until the bucket's lifecycle rule for incomplete uploads
/// takes them.
pub(super) struct S3Upload {
    store: S3Objects,
    key: String,
    gathered: BytesMut,
    begun: Option<String>,
    parts: Vec<CompletedPart>,
}

impl S3Upload {
    pub(super) fn new(store: S3Objects, key: String) -> Self {
        Self {
            store,
            key,
            gathered: BytesMut::new(),
            begun: None,
            parts: Vec::new(),
        }
    }

    fn place(&self) -> String {
        format!("s3://{}/{}", self.store.bucket(), self.key)
    }

    /// The upload's id, from S3 at the first time.
    async fn id(&mut self) -> Result<String, ObjectsError> {
        if let Some(id) = &self.begun {
            return Ok(id.clone());
        }
        let answer = self
            .store
            .client()
            .create_multipart_upload()
            .bucket(self.store.bucket())
            .key(&self.key)
            .send()
            .await
            .map_err(|error| Fault::of(&error).objects(self.place(), ObjectsError::Changed))?;
        let id = answer.upload_id.unwrap_or_default();
        self.begun = Some(id.clone());
        Ok(id)
    }

    /// Sends what was gathered as the next part.
    async fn send_part(&mut self) -> Result<(), ObjectsError> {
        let number = self.parts.len() as i32 + 1;
        if number > PARTS_MAX {
            let place = self.place();
            return Err(ObjectsError::Refused(format!(
                "{place}: more than {PARTS_MAX} parts of {PART_BYTES} bytes: write several objects"
            )));
        }
        let id = self.id().await?;
        let bytes = self.gathered.split().freeze();
        let answer = self
            .store
            .client()
            .upload_part()
            .bucket(self.store.bucket())
            .key(&self.key)
            .upload_id(id)
            .part_number(number)
            .body(ByteStream::from(bytes.clone()))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.gathered = bytes.into();
                return Err(Fault::of(&error).objects(self.place(), ObjectsError::Changed));
            }
        };
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag);
        self.parts.push(part.build());
        Ok(())
    }

    /// Sends the rest and puts the parts together.
    async fn end(&mut self) -> Result<Pin, ObjectsError> {
        if !self.gathered.is_empty() {
            self.send_part().await?;
        }
        let id = self.id().await?;
        let count = self.parts.len();
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(std::mem::take(&mut self.parts)))
            .build();
        let answer = self
            .store
            .client()
            .complete_multipart_upload()
            .bucket(self.store.bucket())
            .key(&self.key)
            .upload_id(id)
            .multipart_upload(parts)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(pinned(answer.e_tag, answer.version_id)),
            Err(error) => match Fault::of(&error).objects(self.place(), ObjectsError::Changed) {
                ObjectsError::NotFound(place) => self.ended_before(place, count).await,
                error => Err(error),
            },
        }
    }

    /// The upload is not there any more. If an earlier try ended it and its reply was lost, then the object is
    /// there, and its eTag says of how many parts it is made ("Checking object integrity").
    async fn ended_before(&self, place: String, parts: usize) -> Result<Pin, ObjectsError> {
        let object = self.store.head(self.key.as_bytes()).await?;
        let etag = object.pin.etag.trim_matches('"');
        let is_it = etag
            .rsplit_once('-')
            .is_some_and(|(_, count)| count == parts.to_string());
        if is_it {
            return Ok(object.pin);
        }
        Err(ObjectsError::NotFound(place))
    }
}

#[async_trait]
impl Upload for S3Upload {
    /// After an error nothing of these bytes was taken: the call may be repeated with them.
    async fn add(&mut self, bytes: Bytes) -> Result<(), ObjectsError> {
        let before = self.gathered.len();
        self.gathered.extend_from_slice(&bytes);
        if self.gathered.len() < PART_BYTES {
            return Ok(());
        }
        let sent = self.send_part().await;
        if sent.is_err() {
            self.gathered.truncate(before);
        }
        sent
    }

    /// What cannot be ended is given up: after an error, too, nothing is left behind.
    async fn complete(mut self: Box<Self>) -> Result<Pin, ObjectsError> {
        if self.begun.is_none() {
            let bytes = std::mem::take(&mut self.gathered).freeze();
            return self.store.put(self.key.as_bytes(), bytes).await;
        }
        let ended = self.end().await;
        if ended.is_err() {
            // The first error is the one to tell; a failed abort is the lifecycle rule's to mend.
            drop(self.abort().await);
        }
        ended
    }

    async fn abort(self: Box<Self>) -> Result<(), ObjectsError> {
        let Some(id) = &self.begun else { return Ok(()) };
        let answer = self
            .store
            .client()
            .abort_multipart_upload()
            .bucket(self.store.bucket())
            .key(&self.key)
            .upload_id(id)
            .send()
            .await;
        let Err(error) = answer else { return Ok(()) };
        match Fault::of(&error).objects(self.place(), ObjectsError::Changed) {
            // An earlier try gave it up, and its reply was lost.
            ObjectsError::NotFound(_) => Ok(()),
            error => Err(error),
        }
    }
}
