//! Sets the stage: the pipeline's own blueprint, and the buckets its users would have.

use std::fmt::Display;

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{FunctionCode, Runtime};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use aws_sdk_s3::types::{Event, NotificationConfiguration, QueueConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use trommel::adapters::aws::{ApplyError, Blueprint, Clients, Found};

use crate::endpoint::Emulator;
use crate::zip;

/// Why the stage could not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// A table or a queue.
    #[error(transparent)]
    Blueprint(#[from] ApplyError),
    /// A bucket or an ingest queue.
    #[error("{what}: {why}")]
    Other {
        /// Which.
        what: String,
        /// The emulator's answer.
        why: String,
    },
}

impl ProvisionError {
    fn other(what: String, why: &dyn Display) -> Self {
        Self::Other {
            what,
            why: why.to_string(),
        }
    }
}

impl Emulator {
    /// Applies the blueprint here, exactly as `trommel provision` does on AWS.
    ///
    /// # Errors
    /// Names what could not be made.
    pub async fn apply(&self, blueprint: &Blueprint) -> Result<(Clients, Found), ProvisionError> {
        let clients = self.clients().await;
        let found = blueprint.apply(&clients).await?;
        Ok((clients, found))
    }

    /// Makes a bucket, if it is not there.
    ///
    /// # Errors
    /// The emulator's answer.
    pub async fn bucket(&self, clients: &Clients, name: &str) -> Result<(), ProvisionError> {
        let made = clients.s3.create_bucket().bucket(name).send().await;
        match made {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(ProvisionError::other(
                format!("bucket `{name}`"),
                &DisplayErrorContext(error),
            )),
        }
    }

    /// Has a bucket's events sent to a queue, as its owner would.
    ///
    /// # Errors
    /// The emulator's answer.
    pub async fn notify(
        &self,
        clients: &Clients,
        bucket: &str,
        queue: &str,
    ) -> Result<(), ProvisionError> {
        let failed = |why: &dyn Display| ProvisionError::other(format!("bucket `{bucket}`"), why);
        let url = clients.sqs.get_queue_url().queue_name(queue).send().await;
        let url = url.map_err(|error| failed(&DisplayErrorContext(error)))?;
        let attributes = clients
            .sqs
            .get_queue_attributes()
            .set_queue_url(url.queue_url)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await;
        let attributes = attributes.map_err(|error| failed(&DisplayErrorContext(error)))?;
        let arn = attributes.attributes();
        let arn = arn.and_then(|found| found.get(&QueueAttributeName::QueueArn));
        let to_queue = QueueConfiguration::builder()
            .queue_arn(arn.cloned().unwrap_or_default())
            .events(Event::S3ObjectCreated)
            .events(Event::S3ObjectRemoved)
            .build()
            .map_err(|error| failed(&error))?;
        let configuration = NotificationConfiguration::builder()
            .queue_configurations(to_queue)
            .build();
        let put = clients
            .s3
            .put_bucket_notification_configuration()
            .bucket(bucket)
            .notification_configuration(configuration)
            .send()
            .await;
        put.map_err(|error| failed(&DisplayErrorContext(error)))?;
        Ok(())
    }

    /// Makes a function of this Python source, whose handler is `handle`; it is ended after so many seconds.
    ///
    /// # Errors
    /// The emulator's answer.
    pub async fn function(
        &self,
        clients: &Clients,
        name: &str,
        source: &str,
        timeout_seconds: i32,
    ) -> Result<(), ProvisionError> {
        let failed = |why: &dyn Display| ProvisionError::other(format!("function `{name}`"), why);
        let code = zip::of_one_file("app.py", source.as_bytes());
        let code = FunctionCode::builder().zip_file(Blob::new(code)).build();
        let made = clients
            .lambda
            .create_function()
            .function_name(name)
            .runtime(Runtime::Python312)
            .handler("app.handle")
            .role("arn:aws:iam::000000000000:role/function")
            .timeout(timeout_seconds)
            .code(code)
            .send()
            .await;
        made.map_err(|error| failed(&DisplayErrorContext(error)))?;
        Ok(())
    }

    /// Makes a plain queue, as a user's ingest queue is.
    ///
    /// # Errors
    /// The emulator's answer.
    pub async fn queue(&self, clients: &Clients, name: &str) -> Result<(), ProvisionError> {
        let made = clients.sqs.create_queue().queue_name(name).send().await;
        made.map_err(|error| {
            ProvisionError::other(format!("queue `{name}`"), &DisplayErrorContext(error))
        })?;
        Ok(())
    }
}
