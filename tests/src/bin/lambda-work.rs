//! The work of the handlers' journeys as a Lambda function in Rust, under `lambda_runtime` as it is.

#![expect(
    clippy::disallowed_methods,
    reason = "a function of somebody's, which knows no clock of ours"
)]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
struct Event {
    n: u64,
    text: String,
    #[serde(rename = "do")]
    what: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    n: u64,
    square: u64,
    upper: String,
}

/// Longer than any test waits.
const LONG: std::time::Duration = std::time::Duration::from_secs(600);

async fn work(event: LambdaEvent<Value>) -> Result<Value, Error> {
    // For the benchmark: nothing but the way there and back.
    let Ok(event) = serde_json::from_value::<Event>(event.payload.clone()) else {
        return Ok(event.payload);
    };
    match event.what.as_deref() {
        Some("sleep") => tokio::time::sleep(LONG).await,
        Some("exit") => std::process::exit(3),
        Some("eat") => {
            let eaten = vec![1_u8; 400 << 20];
            tokio::time::sleep(LONG).await;
            return Ok(eaten.len().into());
        }
        // More than an answer may hold.
        Some("junk") => return Ok("x".repeat(9 << 20).into()),
        Some(_) | None => {}
    }
    Ok(serde_json::to_value(Answer {
        n: event.n,
        square: event.n * event.n,
        upper: event.text.to_uppercase(),
    })?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(work)).await
}
