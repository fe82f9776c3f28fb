//! Which service and operation a request is for. Pure.
//!
//! DynamoDB and SQS say it in a header; S3 by method, path and query. Buckets stand in the path: that is
//! how emulators are asked.

use std::fmt;

use http::HeaderMap;
use http::Method;
use trommel::core::bill::Service;

/// A service's operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Whose.
    pub service: Service,
    /// Its name, as in the service's API.
    pub operation: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.operation)
    }
}

/// What a path of S3 leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Account,
    Bucket,
    Object,
}

/// S3's operations: method, place, a part of the query that marks it, name. The first that fits.
const S3: [(Method, Place, Option<&str>, &str); 23] = [
    (Method::GET, Place::Object, Some("uploadId"), "ListParts"),
    (Method::GET, Place::Object, None, "GetObject"),
    (Method::HEAD, Place::Object, None, "HeadObject"),
    (Method::PUT, Place::Object, Some("partNumber"), "UploadPart"),
    (Method::PUT, Place::Object, None, "PutObject"),
    (
        Method::DELETE,
        Place::Object,
        Some("uploadId"),
        "AbortMultipartUpload",
    ),
    (Method::DELETE, Place::Object, None, "DeleteObject"),
    (
        Method::POST,
        Place::Object,
        Some("uploads"),
        "CreateMultipartUpload",
    ),
    (
        Method::POST,
        Place::Object,
        Some("uploadId"),
        "CompleteMultipartUpload",
    ),
    (
        Method::GET,
        Place::Bucket,
        Some("list-type"),
        "ListObjectsV2",
    ),
    (
        Method::GET,
        Place::Bucket,
        Some("uploads"),
        "ListMultipartUploads",
    ),
    (
        Method::GET,
        Place::Bucket,
        Some("versions"),
        "ListObjectVersions",
    ),
    (
        Method::GET,
        Place::Bucket,
        Some("versioning"),
        "GetBucketVersioning",
    ),
    (
        Method::GET,
        Place::Bucket,
        Some("notification"),
        "GetBucketNotificationConfiguration",
    ),
    (
        Method::GET,
        Place::Bucket,
        Some("location"),
        "GetBucketLocation",
    ),
    (Method::GET, Place::Bucket, None, "ListObjects"),
    (Method::HEAD, Place::Bucket, None, "HeadBucket"),
    (
        Method::PUT,
        Place::Bucket,
        Some("versioning"),
        "PutBucketVersioning",
    ),
    (
        Method::PUT,
        Place::Bucket,
        Some("notification"),
        "PutBucketNotificationConfiguration",
    ),
    (Method::PUT, Place::Bucket, None, "CreateBucket"),
    (Method::DELETE, Place::Bucket, None, "DeleteBucket"),
    (Method::POST, Place::Bucket, Some("delete"), "DeleteObjects"),
    (Method::GET, Place::Account, None, "ListBuckets"),
];

impl Call {
    /// An operation of a service.
    pub fn new(service: Service, operation: impl Into<String>) -> Self {
        Self {
            service,
            operation: operation.into(),
        }
    }

    /// What a request is for; none if for none of the three services, such as an emulator's own pages.
    pub(super) fn of(
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Option<Self> {
        if let Some(target) = headers.get("x-amz-target") {
            let (api, operation) = target.to_str().ok()?.split_once('.')?;
            let service = match api {
                "DynamoDB_20120810" => Service::DynamoDb,
                "AmazonSQS" => Service::Sqs,
                _ => return None,
            };
            return Some(Self::new(service, operation));
        }
        let is_own_page = path.starts_with("/_");
        if is_own_page {
            return None;
        }
        let place = match path.trim_start_matches('/').split_once('/') {
            None if path == "/" => Place::Account,
            None | Some((_, "")) => Place::Bucket,
            Some(_) => Place::Object,
        };
        let has = |name: &str| {
            let mut pairs = query.split('&');
            pairs.any(|pair| pair.split('=').next() == Some(name))
        };
        let fits = |(for_method, at, mark, _): &&(Method, Place, Option<&str>, &str)| {
            for_method == method && *at == place && mark.is_none_or(has)
        };
        let named = S3.iter().find(fits);
        let operation = named.map_or_else(|| format!("{method} {place:?}"), |row| row.3.to_owned());
        Some(Self::new(Service::S3, operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(method: Method, path: &str, query: &str) -> String {
        let call = Call::of(&method, path, query, &HeaderMap::new());
        call.expect("a request to S3").to_string()
    }

    #[test]
    fn dynamodb_and_sqs_name_their_operations() {
        let call = |target: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-target", http::HeaderValue::from_static(target));
            Call::of(&Method::POST, "/", "", &headers).map(|call| call.to_string())
        };
        let get = call("DynamoDB_20120810.GetItem");
        assert_eq!(get.as_deref(), Some("dynamodb GetItem"));
        let send = call("AmazonSQS.SendMessageBatch");
        assert_eq!(send.as_deref(), Some("sqs SendMessageBatch"));
        assert_eq!(call("AWSStepFunctions.StartExecution"), None);
    }

    #[test]
    fn s3_is_known_by_method_path_and_query() {
        assert_eq!(s3(Method::GET, "/", ""), "s3 ListBuckets");
        assert_eq!(
            s3(Method::GET, "/b/", "list-type=2&prefix=a"),
            "s3 ListObjectsV2"
        );
        assert_eq!(s3(Method::PUT, "/b", ""), "s3 CreateBucket");
        assert_eq!(s3(Method::GET, "/b/a/b", "x-id=GetObject"), "s3 GetObject");
        assert_eq!(s3(Method::HEAD, "/b/k", ""), "s3 HeadObject");
        assert_eq!(s3(Method::PUT, "/b/k", "x-id=PutObject"), "s3 PutObject");
        assert_eq!(
            s3(Method::PUT, "/b/k", "partNumber=1&uploadId=u"),
            "s3 UploadPart"
        );
        assert_eq!(
            s3(Method::POST, "/b/k", "uploads"),
            "s3 CreateMultipartUpload"
        );
        assert_eq!(
            s3(Method::POST, "/b/k", "uploadId=u"),
            "s3 CompleteMultipartUpload"
        );
        assert_eq!(
            s3(Method::DELETE, "/b/k", "uploadId=u"),
            "s3 AbortMultipartUpload"
        );
        assert_eq!(s3(Method::DELETE, "/b/k", ""), "s3 DeleteObject");
        assert_eq!(s3(Method::PATCH, "/b/k", ""), "s3 PATCH Object");
    }

    #[test]
    fn a_key_that_begins_with_a_slash_is_a_key() {
        assert_eq!(s3(Method::GET, "/b//k", ""), "s3 GetObject");
    }

    #[test]
    fn an_emulators_own_pages_are_no_service() {
        let health = Call::of(&Method::GET, "/_localstack/health", "", &HeaderMap::new());
        assert_eq!(health, None);
    }
}
