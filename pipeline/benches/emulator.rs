//! Items a second and calls an item on DynamoDB, SQS and S3: in-process no-op handler, one call an item.
//!
//! `cargo bench -p trommel --features full --bench emulator -- objects BUCKET`: the objects of a bucket that is there.
//! `… -- events ITEMS [on|off]`: notifications that are queued before the start, with marks or without.
//!
//! `AWS_ENDPOINT_URL` says where; it goes nowhere without one.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::time::{Duration, Instant};

use trommel::adapters::aws::{Blueprint, Clients, DynamoTable, Endpoint, SqsQueue};
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::adapters::tokio_runtime;
use trommel::core::bill::{Bill, Service};
use trommel::core::id::{JobName, SessionId};
use trommel::core::price::Prices;
use trommel::ledger::Ledger;
use trommel::ports::Queue as _;
use trommel::ports::queue::Outgoing;
use trommel::runner::Embedded;

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    if std::env::var("AWS_ENDPOINT_URL").is_err() {
        return Err("set AWS_ENDPOINT_URL to an emulator: this makes tables and queues".into());
    }
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let clients = Clients::open(Endpoint::from_env()).await;
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["objects", bucket] => objects(bucket).await,
        ["events", items] => events(&clients, items.parse()?, "true").await,
        ["events", items, "on"] => events(&clients, items.parse()?, "true").await,
        ["events", items, "off"] => events(&clients, items.parse()?, "false").await,
        _ => Err("say `objects BUCKET` or `events ITEMS [on|off]`".into()),
    }
}

fn fresh(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{name}-{:x}", now.map_or(0, |now| now.as_millis()))
}

async fn objects(bucket: &str) -> Result<(), Failed> {
    let table = fresh("bench");
    let job = format!(
        "name = \"noop\"\ninput = {{ objects = \"s3://{bucket}/in/\" }}\nmax_concurrency = 1000\n\
         ledger = \"dynamodb:{table}\"\nscratch = \"s3://{bucket}/scratch\"\n"
    );
    let noop = handler(|_: HandlerItem| async move { Ok(()) });
    let begun = Instant::now();
    let (report, bill) = Embedded::new(job, noop)?.run_with_bill().await?;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(
        report.counts.succeeded, report.counts.total,
        "every item succeeds"
    );
    tell("objects", report.counts.total, seconds, bill);
    Ok(())
}

async fn events(clients: &Clients, items: u64, dedupe: &str) -> Result<(), Failed> {
    let name = fresh("bench");
    let queue_name = format!("{name}-in");
    clients
        .sqs
        .create_queue()
        .queue_name(&queue_name)
        .send()
        .await?;
    clients.s3.create_bucket().bucket(&name).send().await?;
    let queue = SqsQueue::open(clients, &queue_name).await?;
    fill(&queue, items).await?;
    let job = format!(
        "name = \"noop\"\ninput = {{ events = \"sqs:{queue_name}\", window = \"1h\", dedupe = {dedupe} }}\n\
         max_concurrency = 1000\nledger = \"dynamodb:{name}\"\nscratch = \"s3://{name}/scratch\"\n"
    );
    Blueprint::new(&name)?.apply(clients).await?;
    let noop = handler(|_: HandlerItem| async move { Ok(()) });
    let embedded = Embedded::new(job, noop)?;
    let drain = embedded.drain();
    let begun = Instant::now();
    let watch = async {
        let done = settled(clients, &name, items).await;
        let seconds = begun.elapsed().as_secs_f64();
        drain.cancel();
        done.map(|()| seconds)
    };
    let (bill, seconds) = tokio::join!(embedded.serve(), watch);
    let what = format!(
        "events, marks {}",
        if dedupe == "true" { "on" } else { "off" }
    );
    tell(&what, items, seconds?, bill?);
    Ok(())
}

/// Queues so many notifications of objects that nobody reads.
async fn fill(queue: &SqsQueue, items: u64) -> Result<(), Failed> {
    let numbers: Vec<u64> = (0..items).collect();
    for batch in numbers.chunks(10) {
        let message = |number: &u64| {
            Outgoing::now(format!(
                r#"{{"Records":[{{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-east-1","eventTime":"2026-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put","s3":{{"s3SchemaVersion":"1.0","bucket":{{"name":"photos","arn":"arn:aws:s3:::photos"}},"object":{{"key":"in/object-{number:07}.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","sequencer":"{number:016X}"}}}}}}]}}"#
            ))
        };
        queue.send(batch.iter().map(message).collect()).await?;
    }
    Ok(())
}

/// Waits until so many items are settled. It asks by clients of its own, so that the bill is the run's alone.
async fn settled(clients: &Clients, table: &str, items: u64) -> Result<(), Failed> {
    let table = std::sync::Arc::new(DynamoTable::new(clients, table));
    let ledger = Ledger::new(table, tokio_runtime::runtime(), SessionId::new("bench"));
    loop {
        let mut sum = 0;
        for open in ledger.open_windows(&JobName::new("noop")).await? {
            sum += ledger.tallies(&open.row.id).await?.settled().total();
        }
        if sum >= items {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn tell(what: &str, items: u64, seconds: f64, bill: Option<Bill>) {
    let rate = items as f64 / seconds;
    println!("{items} {what}: {seconds:.2} s, {rate:.0} items/s");
    let Some(bill) = bill else { return };
    let (calls, usd) = (bill.requests() as f64, bill.usd(&Prices::LIST));
    let per_item = |calls: f64| calls / items as f64;
    println!(
        "  {calls} requests, {:.3} an item; {:.3} USD a million items",
        per_item(calls),
        usd * 1e6 / items as f64
    );
    for service in Service::ALL {
        let operations: Vec<String> = bill
            .calls
            .get(&service)
            .into_iter()
            .flatten()
            .map(|(operation, calls)| format!("{operation} {calls}"))
            .collect();
        println!("  {}: {}", service.as_str(), operations.join(", "));
    }
}
