//! Trommel's own router, worker and sweeper as one Lambda function: which of them it is stands in `TROMMEL_FUNCTION`, the job
//! in `TROMMEL_JOB`. What to copy into a project of one's own; its handler takes the size of each object as its work.

#![expect(
    clippy::disallowed_methods,
    reason = "a function of somebody's, which knows no clock of ours"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::core::lane::Lane;
use trommel::function::{Function, SqsEvent};

/// The time that is left until Lambda gives it up.
fn within(deadline_ms: u64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Duration::from_millis(deadline_ms).saturating_sub(now)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let role = std::env::var("TROMMEL_FUNCTION")?;
    let work = handler(|item: HandlerItem| async move {
        let object: Value = item.json()?;
        assert!(object["size"] != 13, "nobody likes 13 bytes");
        Ok(json!({"key": object["key"], "size": object["size"]}))
    });
    let function = Function::new(std::env::var("TROMMEL_JOB")?, work).await?;
    let (function, role) = (&function, role.as_str());
    let answer = |event: LambdaEvent<Value>| async move {
        let within = within(event.context.deadline);
        let answer = match role {
            "sweeper" => {
                function.sweeper(within).await?;
                Value::Null
            }
            "router" => {
                let event: SqsEvent = serde_json::from_value(event.payload)?;
                serde_json::to_value(function.router(&event, within).await?)?
            }
            lane => {
                let lane = Lane::ALL.into_iter().find(|one| one.as_str() == lane);
                let lane = lane.ok_or("TROMMEL_FUNCTION is router, sweeper or a lane")?;
                let event: SqsEvent = serde_json::from_value(event.payload)?;
                serde_json::to_value(function.worker(lane, &event, within).await?)?
            }
        };
        Ok::<_, Error>(answer)
    };
    run(service_fn(answer)).await
}
