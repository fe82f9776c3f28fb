//! Counts what this process asks of AWS, at the SDK's clients: every request that is sent, repetitions
//! included, by service and operation; and the units that DynamoDB bills for it.
//!
//! Units are those that DynamoDB tells (`ReturnConsumedCapacity`). Where it tells none (a condition that
//! failed is billed, an answer that never came may be), they are computed from the bytes of the request
//! or the answer, which are longer than the row: the bill is too high there, never too low. A request
//! whose caller went away before its answer counts as a call, without units.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::operation::delete_item::DeleteItemOutput;
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::put_item::PutItemOutput;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsOutput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemOutput;
use aws_sdk_dynamodb::types::ConsumedCapacity;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

use crate::core::bill::{Bill, Service};
use crate::core::price::{
    Functions, TRANSACTION_FACTOR, Usage, strong_read_half_units, write_units,
};

/// "Amazon SQS pricing": every 64 KB of a request or an answer is billed as one request.
const SQS_REQUEST_BYTES: u64 = 64 * 1024;

/// Stands in the answer to a write that DynamoDB bills though it was not done.
const CONDITION_FAILED: &[u8] = b"ConditionalCheckFailed";

/// The calls of the clients that share it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Bill>>);

impl Meter {
    /// What was counted so far.
    pub fn snapshot(&self) -> Bill {
        self.bill().clone()
    }

    /// What counts for one service's client.
    pub(super) fn of(&self, service: Service) -> Counter {
        Counter {
            meter: self.clone(),
            service,
        }
    }

    /// Functions were called, by an executor; what that sends is compute and counted nowhere else.
    pub(super) fn called(&self, functions: Functions) {
        self.bill().functions += functions;
    }

    fn bill(&self) -> MutexGuard<'_, Bill> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one client's requests.
#[derive(Debug)]
pub(super) struct Counter {
    meter: Meter,
    service: Service,
}

/// The length of the body that an attempt sent.
#[derive(Clone, Copy, Debug)]
struct Sent(u64);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request().body();
        let sent = body.content_length().unwrap_or(0);
        let operation = operation(config);
        let mut bill = self.meter.bill();
        bill.sent_bytes += sent;
        bill.usage += billed(self.service, operation, sent);
        let operations = bill.calls.entry(self.service).or_default();
        match operations.get_mut(operation) {
            Some(times) => *times += 1,
            None => drop(operations.insert(operation.to_owned(), 1)),
        }
        drop(bill);
        config.interceptor_state().store_put(Sent(sent));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Sent(sent)) = config.load::<Sent>().copied() else {
            // It was never sent.
            return Ok(());
        };
        let received = context.response().map_or(0, length);
        let more = match self.service {
            Service::DynamoDb => units(operation(config), context, sent, received),
            Service::Sqs => Usage {
                sqs_requests: chunks(received).saturating_sub(chunks(sent)),
                ..Usage::default()
            },
            Service::S3 => Usage::default(),
        };
        let mut bill = self.meter.bill();
        bill.received_bytes += received;
        bill.usage += more;
        Ok(())
    }
}

fn operation(config: &ConfigBag) -> &str {
    config.load::<Metadata>().map_or("?", Metadata::name)
}

fn length(response: &HttpResponse) -> u64 {
    let told = || response.headers().get("content-length")?.parse().ok();
    let body = response.body();
    let whole = body.bytes().map(|bytes| bytes.len() as u64);
    whole.or_else(told).unwrap_or(0)
}

fn chunks(bytes: u64) -> u64 {
    bytes.div_ceil(SQS_REQUEST_BYTES).max(1)
}

/// What sending it costs, whatever comes of it.
fn billed(service: Service, operation: &str, sent: u64) -> Usage {
    let none = Usage::default();
    match service {
        Service::DynamoDb => Usage {
            dynamodb_requests: 1,
            ..none
        },
        Service::Sqs => Usage {
            sqs_requests: chunks(sent),
            ..none
        },
        Service::S3 if operation.starts_with("Get") || operation.starts_with("Head") => {
            Usage { s3_gets: 1, ..none }
        }
        // "Amazon S3 pricing": DELETE and CANCEL requests are free.
        Service::S3 if operation.starts_with("Delete") || operation.starts_with("Abort") => none,
        Service::S3 => Usage { s3_puts: 1, ..none },
    }
}

/// What a request to DynamoDB may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Transaction,
    /// Tables themselves: free.
    Other,
}

impl Kind {
    fn of(operation: &str) -> Self {
        match operation {
            "GetItem" | "BatchGetItem" | "Query" | "Scan" => Self::Read,
            "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem" => Self::Write,
            "TransactWriteItems" => Self::Transaction,
            _ => Self::Other,
        }
    }

    /// So many units.
    fn consumed(self, units: f64) -> Usage {
        match self {
            Self::Read => Usage {
                read_half_units: (units * 2.0).round() as u64,
                ..Usage::default()
            },
            Self::Write | Self::Transaction => Usage {
                write_units: units.ceil() as u64,
                ..Usage::default()
            },
            Self::Other => Usage::default(),
        }
    }

    /// The most it can have cost.
    fn by_bytes(self, sent: u64, received: u64) -> Usage {
        match self {
            Self::Read => Usage {
                read_half_units: strong_read_half_units(received as usize),
                ..Usage::default()
            },
            Self::Write => Usage {
                write_units: write_units(sent as usize),
                ..Usage::default()
            },
            Self::Transaction => Usage {
                write_units: TRANSACTION_FACTOR * write_units(sent as usize),
                ..Usage::default()
            },
            Self::Other => Usage::default(),
        }
    }
}

/// The units of one attempt.
fn units(
    operation: &str,
    context: &FinalizerInterceptorContextRef<'_>,
    sent: u64,
    received: u64,
) -> Usage {
    let kind = Kind::of(operation);
    if let Some(Ok(output)) = context.output_or_error() {
        return match told(output) {
            Some(units) => kind.consumed(units),
            None => kind.by_bytes(sent, received),
        };
    }
    let Some(response) = context.response() else {
        return kind.by_bytes(sent, received);
    };
    let body = response.body().bytes().unwrap_or_default();
    if memchr::memmem::find(body, CONDITION_FAILED).is_some() {
        return kind.by_bytes(sent, received);
    }
    // Throttled, refused, or an error of the service: not billed.
    Usage::default()
}

/// The units that an answer tells.
fn told(output: &Output) -> Option<f64> {
    let one = |capacity: Option<&ConsumedCapacity>| capacity?.capacity_units();
    if let Some(get) = output.downcast_ref::<GetItemOutput>() {
        return one(get.consumed_capacity());
    }
    if let Some(query) = output.downcast_ref::<QueryOutput>() {
        return one(query.consumed_capacity());
    }
    if let Some(put) = output.downcast_ref::<PutItemOutput>() {
        return one(put.consumed_capacity());
    }
    if let Some(update) = output.downcast_ref::<UpdateItemOutput>() {
        return one(update.consumed_capacity());
    }
    if let Some(delete) = output.downcast_ref::<DeleteItemOutput>() {
        return one(delete.consumed_capacity());
    }
    let transact = output.downcast_ref::<TransactWriteItemsOutput>()?;
    let tables = transact.consumed_capacity();
    let units: Vec<f64> = tables
        .iter()
        .filter_map(ConsumedCapacity::capacity_units)
        .collect();
    (!units.is_empty()).then(|| units.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_bills_what_it_lists_as_it_bills_a_put_and_deletes_for_free() {
        let usage = |operation| billed(Service::S3, operation, 0);
        assert_eq!(usage("ListObjectsV2").s3_puts, 1);
        assert_eq!(usage("UploadPart").s3_puts, 1);
        assert_eq!(usage("GetObject").s3_gets, 1);
        assert_eq!(usage("HeadObject").s3_gets, 1);
        assert_eq!(usage("DeleteObject"), Usage::default());
        assert_eq!(usage("AbortMultipartUpload"), Usage::default());
    }

    #[test]
    fn sqs_bills_each_64_kb() {
        let usage = |sent| billed(Service::Sqs, "SendMessageBatch", sent).sqs_requests;
        assert_eq!([usage(0), usage(65_536), usage(65_537)], [1, 1, 2]);
    }

    #[test]
    fn units_are_as_told_or_by_bytes() {
        assert_eq!(Kind::of("GetItem").consumed(0.5).read_half_units, 1);
        assert_eq!(Kind::of("TransactWriteItems").consumed(4.0).write_units, 4);
        assert_eq!(Kind::of("PutItem").by_bytes(1025, 0).write_units, 2);
        assert_eq!(
            Kind::of("TransactWriteItems").by_bytes(1025, 0).write_units,
            4
        );
        assert_eq!(Kind::of("Query").by_bytes(0, 4097).read_half_units, 4);
        assert_eq!(
            Kind::of("CreateTable").by_bytes(9999, 9999),
            Usage::default()
        );
    }

    #[test]
    fn an_answer_tells_its_units() {
        let capacity = |units| ConsumedCapacity::builder().capacity_units(units).build();
        let get = GetItemOutput::builder()
            .consumed_capacity(capacity(0.5))
            .build();
        assert_eq!(told(&Output::erase(get)), Some(0.5));
        let transact = TransactWriteItemsOutput::builder().consumed_capacity(capacity(4.0));
        assert_eq!(told(&Output::erase(transact.build())), Some(4.0));
        assert_eq!(told(&Output::erase(PutItemOutput::builder().build())), None);
    }
}
