//! The `lambda` executor: a call is an invocation of a function on AWS Lambda, waited for.
//!
//! How a function is asked and answers is [`crate::adapters::invocation`]'s, what refusals mean is [`refusal`]'s. A call is
//! sent once: the SDK's own repetitions are switched off, since each would run the handler again without the ledger knowing.
//! It decides neither retries nor timeouts: whoever wants a call to end stops it. An invocation cannot be cancelled, so a
//! stopped call ends here and may go on there, until the function's own timeout.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for a real service, which no simulated clock can hurry"
)]

mod ramp;
mod refusal;
mod report;
#[cfg(test)]
pub(super) mod testing;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::config::{Clients, long_poll_timeouts};
use super::meter::Meter;
use super::pointer::Pointers;
use crate::adapters::invocation::{
    Invocation, not_said, read_answer, read_error, unbounded_invocation,
};
use crate::core::class::{Class, Failure};
use crate::core::job::{FUNCTION_TIMEOUT_DEFAULT, LambdaSpec, LaneSpec, OutputMode};
use crate::core::price::Functions;
use crate::core::time::Tick;
use crate::ports::executor::{Call, CallItem, CallReport, Executor, Stop};
use ramp::Ramp;
use refusal::Refusal;
use report::Billed;

/// A call waits for the ramp for so much of its lane's timeout at most, which runs meanwhile; then it goes back as throttled,
/// which is charged to nobody's retries.
const RAMP_SHARE_OF_TIMEOUT: u32 = 2;

/// Invokes a function for each call.
pub struct LambdaExecutor {
    client: Client,
    meter: Meter,
    function: String,
    output: OutputMode,
    pointers: Option<Pointers>,
    ramp: Mutex<Ramp>,
    ramp_wait_max: Duration,
    start: Instant,
}

impl LambdaExecutor {
    /// Calls of this function by the lane's rules. Events too long to be sent go into `pointers`; without it they fail. Talks
    /// to nobody yet: a function that is not there shows with the first call.
    pub fn new(
        clients: &Clients,
        spec: &LambdaSpec,
        lane: &LaneSpec,
        pointers: Option<Pointers>,
    ) -> Self {
        let timeout = lane
            .timeout
            .unwrap_or(FUNCTION_TIMEOUT_DEFAULT)
            .min(FUNCTION_TIMEOUT_DEFAULT);
        // The lane's clock stops a call first, and Lambda's own before that: this one is for answers that never come.
        let patient = clients
            .lambda
            .config()
            .to_builder()
            .timeout_config(long_poll_timeouts(timeout + lane.grace))
            .build();
        Self {
            client: Client::from_conf(patient),
            meter: clients.meter.clone(),
            function: spec.function.clone(),
            output: lane.output,
            pointers,
            ramp: Mutex::new(Ramp::new(Tick::default())),
            ramp_wait_max: timeout / RAMP_SHARE_OF_TIMEOUT,
            start: Instant::now(),
        }
    }

    async fn execute(&self, call: &Call, items: &[&CallItem], stop: &Stop) -> CallReport {
        let _place = match self.place(stop).await {
            Ok(place) => place,
            Err(NoPlace::Stopped) => return not_sent(items.len()),
            Err(NoPlace::Full) => {
                let cause = "more calls wait than Lambda takes on in this time (\"Lambda scaling behavior\")";
                let failure = Failure::new(Class::Throttled, cause);
                return whole(items.len(), &failure);
            }
        };
        let invocation = match self.invocation(call, items).await {
            Ok(invocation) => invocation,
            Err(failure) => return whole(items.len(), &failure),
        };
        if stop.is_cancelled() {
            return not_sent(items.len());
        }
        let answer = self.invoke(invocation);
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(output) => self.read(call, items, &output),
                Err(refusal) => self.refused(items.len(), &refusal),
            },
            () = out_of_time(stop, call.grace) => {
                self.count(None);
                let cause = "stopped here; an invocation cannot be cancelled, so the function may go on until its own timeout";
                CallReport::undecided(items.len(), &Failure::new(Class::Crashed, cause))
            }
        }
    }

    /// Waits until one more call is worth sending.
    async fn place(&self, stop: &Stop) -> Result<Place<'_>, NoPlace> {
        let asked = Instant::now();
        while let Err(wait) = self.begin() {
            if asked.elapsed() + wait > self.ramp_wait_max {
                return Err(NoPlace::Full);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(NoPlace::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(Place(self))
    }

    fn begin(&self) -> Result<(), Duration> {
        let now = Tick::default() + self.start.elapsed();
        self.ramp().begin(now)
    }

    fn ramp(&self) -> MutexGuard<'_, Ramp> {
        self.ramp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn invocation(&self, call: &Call, items: &[&CallItem]) -> Result<Invocation, Failure> {
        let invocation = unbounded_invocation(call, items)?;
        let Some(excess) = invocation.excess() else {
            return Ok(invocation);
        };
        let Some(pointers) = &self.pointers else {
            let cause = format!(
                "{excess}; with scratch = \"s3://bucket/prefix\" in the job it would be put there, and a pointer sent"
            );
            return Err(Failure::new(Class::BadInput, cause));
        };
        let event = pointers.put(call, items, invocation.event).await?;
        Ok(Invocation {
            event,
            context: invocation.context,
        })
    }

    async fn invoke(&self, invocation: Invocation) -> Result<InvokeOutput, Refusal> {
        let answer = self
            .client
            .invoke()
            .function_name(&self.function)
            .invocation_type(InvocationType::RequestResponse)
            .log_type(LogType::Tail)
            .client_context(STANDARD.encode(invocation.context))
            .payload(Blob::new(invocation.event))
            .send()
            .await;
        answer.map_err(|error| Refusal::of(&error))
    }

    fn read(&self, call: &Call, items: &[&CallItem], output: &InvokeOutput) -> CallReport {
        let log = output.log_result().unwrap_or_default();
        // A log that cannot be read is no reason to lose an answer.
        let log = STANDARD.decode(log).unwrap_or_default();
        self.count(report::billed(&log));
        let answer = output.payload().map(Blob::as_ref).unwrap_or_default();
        let items = if output.function_error().is_some() {
            not_said(items.len(), &read_error(answer, None, &log))
        } else {
            read_answer(call, items, answer, self.output)
        };
        CallReport { items }
    }

    fn refused(&self, items: usize, refusal: &Refusal) -> CallReport {
        match refusal {
            // A function that did not run is not billed ("AWS Lambda Pricing", requests).
            Refusal::NotRun(_) => {}
            Refusal::Unclear(_) => self.count(None),
        }
        refusal.report(items)
    }

    fn count(&self, billed: Option<Billed>) {
        self.meter.called(Functions {
            invocations: 1,
            mb_millis: billed.map_or(0, |billed| billed.millis * billed.memory_mb),
        });
    }
}

#[async_trait]
impl Executor for LambdaExecutor {
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let items: Vec<&CallItem> = call.items.iter().collect();
        self.execute(&call, &items, &stop).await
    }
}

/// One of the calls that run; gives its place back when it is dropped.
struct Place<'a>(&'a LambdaExecutor);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.ramp().end();
    }
}

enum NoPlace {
    Stopped,
    Full,
}

fn not_sent(items: usize) -> CallReport {
    CallReport::undecided(
        items,
        &Failure::new(Class::Crashed, "stopped before it was sent"),
    )
}

fn whole(items: usize, failure: &Failure) -> CallReport {
    CallReport {
        items: not_said(items, failure),
    }
}

/// Completes when a stopped call's time is over.
async fn out_of_time(stop: &Stop, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}

#[cfg(test)]
mod tests;
