//! Failures in the services' own words, as far as the SDK looks at them. Pure.
//!
//! "Common errors" of each service's API reference; "Error handling with DynamoDB"; "REST error responses" of S3.

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode, header};
use http_body_util::Full;
use trommel::core::bill::Service;

use super::operation::Call;

/// A failure of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 500.
    Error500,
    /// 503.
    Error503,
    /// Too fast.
    Throttled {
        /// Some services have several names for it: chance chooses.
        draw: u64,
        /// Of a transaction: how many writes it has.
        writes: usize,
    },
}

/// A status, a code with its name space, a message.
struct Words {
    status: StatusCode,
    space: &'static str,
    code: &'static str,
    message: &'static str,
}

impl Words {
    const fn new(
        status: StatusCode,
        space: &'static str,
        code: &'static str,
        message: &'static str,
    ) -> Self {
        Self {
            status,
            space,
            code,
            message,
        }
    }
}

const DYNAMODB: &str = "com.amazonaws.dynamodb.v20120810#";
const AVAILABILITY: &str = "com.amazon.coral.availability#";
const CORAL: &str = "com.amazon.coral.service#";
const SQS: &str = "com.amazonaws.sqs#";

/// What the service answers.
pub(super) fn reply(call: &Call, refusal: Refusal) -> Response<Full<Bytes>> {
    match call.service {
        Service::DynamoDb => dynamodb(call, refusal),
        Service::Sqs => sqs(refusal),
        Service::S3 => s3(refusal),
    }
}

fn dynamodb(call: &Call, refusal: Refusal) -> Response<Full<Bytes>> {
    let (draw, writes) = match refusal {
        Refusal::Error500 => {
            let words = Words::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                DYNAMODB,
                "InternalServerError",
                "The request processing has failed because of an unknown error",
            );
            return json(&words, None);
        }
        Refusal::Error503 => {
            let words = Words::new(
                StatusCode::SERVICE_UNAVAILABLE,
                AVAILABILITY,
                "ServiceUnavailableException",
                "Service is temporarily unavailable",
            );
            return json(&words, None);
        }
        Refusal::Throttled { draw, writes } => (draw, writes),
    };
    let is_about_rows =
        call.operation.contains("Item") || matches!(call.operation.as_str(), "Query" | "Scan");
    match draw % 2 {
        0 if call.operation == "TransactWriteItems" => cancelled(writes),
        0 if is_about_rows => {
            let words = Words::new(
                StatusCode::BAD_REQUEST,
                DYNAMODB,
                "ProvisionedThroughputExceededException",
                "The level of configured provisioned throughput for the table was exceeded. Consider increasing \
                 your provisioning level with the UpdateTable API.",
            );
            json(&words, None)
        }
        _ => {
            let words = Words::new(
                StatusCode::BAD_REQUEST,
                AVAILABILITY,
                "ThrottlingException",
                "Rate exceeded",
            );
            json(&words, None)
        }
    }
}

/// A transaction of which the first write was too fast.
fn cancelled(writes: usize) -> Response<Full<Bytes>> {
    let rest = vec!["None"; writes.saturating_sub(1)].join(", ");
    let all = if rest.is_empty() {
        "ThrottlingError".to_owned()
    } else {
        format!("ThrottlingError, {rest}")
    };
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{all}]"
    );
    let none = r#",{"Code":"None"}"#.repeat(writes.saturating_sub(1));
    let body = format!(
        r#"{{"__type":"{DYNAMODB}TransactionCanceledException","Message":"{message}","CancellationReasons":[{{"Code":"ThrottlingError","Message":"Throughput exceeds the current capacity of your table or index."}}{none}]}}"#
    );
    answer(
        StatusCode::BAD_REQUEST,
        "application/x-amz-json-1.0",
        body,
        &[("x-amzn-errortype", "TransactionCanceledException")],
    )
}

fn sqs(refusal: Refusal) -> Response<Full<Bytes>> {
    let (words, query_error) = match refusal {
        Refusal::Error500 => (
            Words::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                CORAL,
                "InternalFailure",
                "The request processing has failed because of an unknown error, exception or failure.",
            ),
            "InternalFailure;Receiver",
        ),
        Refusal::Error503 => (
            Words::new(
                StatusCode::SERVICE_UNAVAILABLE,
                CORAL,
                "ServiceUnavailable",
                "The request has failed due to a temporary failure of the server.",
            ),
            "ServiceUnavailable;Receiver",
        ),
        Refusal::Throttled { draw, .. } if draw % 2 == 0 => (
            Words::new(
                StatusCode::BAD_REQUEST,
                SQS,
                "RequestThrottled",
                "Request is throttled.",
            ),
            "RequestThrottled;Sender",
        ),
        Refusal::Throttled { .. } => (
            Words::new(
                StatusCode::BAD_REQUEST,
                AVAILABILITY,
                "ThrottlingException",
                "Rate exceeded",
            ),
            "ThrottlingException;Sender",
        ),
    };
    json(&words, Some(query_error))
}

fn s3(refusal: Refusal) -> Response<Full<Bytes>> {
    let (status, code, message) = match refusal {
        Refusal::Error500 => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "We encountered an internal error. Please try again.",
        ),
        Refusal::Error503 => (
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "Service is unable to handle request.",
        ),
        Refusal::Throttled { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "SlowDown",
            "Please reduce your request rate.",
        ),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>chaos</RequestId><HostId>chaos</HostId></Error>"
    );
    answer(status, "application/xml", body, &[])
}

fn json(words: &Words, query_error: Option<&str>) -> Response<Full<Bytes>> {
    let Words {
        status,
        space,
        code,
        message,
    } = words;
    let body = format!(r#"{{"__type":"{space}{code}","message":"{message}"}}"#);
    let mut headers = vec![("x-amzn-errortype", *code)];
    headers.extend(query_error.map(|error| ("x-amzn-query-error", error)));
    answer(*status, "application/x-amz-json-1.0", body, &headers)
}

fn answer(
    status: StatusCode,
    content_type: &str,
    body: String,
    headers: &[(&'static str, &str)],
) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header("x-amzn-requestid", "chaos");
    for (name, value) in headers {
        response = response.header(HeaderName::from_static(name), *value);
    }
    let response = response.body(Full::new(Bytes::from(body)));
    response.expect("names and values are plain text")
}
