//! Handlers in this process: a Rust closure as an executor, for programs that embed Trommel.
//!
//! A panic fails its item and nothing else. A stopped call is ended by dropping its future, so it ends at
//! its next await; a handler that wants to finish first asks [`HandlerItem::stop`] and is given a clock
//! with [`Handler::with_clock`], which lets it go on for the call's grace.

use std::any::{Any, TypeId};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::class::{Class, Failure};
use crate::core::id::{Epoch, Generation, ItemId, RunId};
use crate::core::item::Input;
use crate::ports::Clock;
use crate::ports::executor::{
    Call, CallItem, CallReport, Executor, ItemReport, OUTPUT_BYTES_MAX, Output, Stop,
};

/// One item, as a handler gets it.
#[derive(Clone, Debug)]
pub struct HandlerItem {
    /// The run it belongs to.
    pub run: RunId,
    /// Its name within the run.
    pub id: ItemId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The epoch of the lease it runs under.
    pub epoch: Epoch,
    /// The generation it runs in.
    pub generation: Generation,
    input: Arc<Input>,
    stop: Stop,
}

impl HandlerItem {
    fn new(run: &RunId, item: &CallItem, stop: &Stop) -> Self {
        Self {
            run: run.clone(),
            id: item.id,
            attempt: item.attempt,
            epoch: item.epoch,
            generation: item.generation,
            input: Arc::clone(&item.input),
            stop: stop.clone(),
        }
    }

    /// Stable over attempts, generations and escalation: what an effect outside should be keyed by.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.run, self.id)
    }

    /// What to work on.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Told when the call should end; ask it before a step that takes long.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The input read as this type: a value's JSON, or what a command would get for an object.
    ///
    /// # Errors
    /// `BadInput`, if it is of another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let read = match &*self.input {
            Input::Value(json) => serde_json::from_str(json),
            Input::Object(object) => serde_json::from_str(&object.to_json()),
        };
        read.map_err(|error| Failure::new(Class::BadInput, format!("the input: {error}")))
    }
}

/// A handler of single items; the items of a batch go through it one after another. What it answers is
/// the item's output: `()` is none, anything else goes out as JSON, at most [`OUTPUT_BYTES_MAX`] long.
pub fn handler<F, Fut, T>(handle: F) -> Handler<F>
where
    F: Fn(HandlerItem) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Failure>> + Send,
    T: Serialize + 'static,
{
    Handler {
        handle,
        clock: None,
    }
}

/// A handler of whole batches: it answers a result for each item, in their order. If it answers another
/// number of results, or panics, nothing is known of any of them.
pub fn batch_handler<F, Fut, T>(handle: F) -> BatchHandler<F>
where
    F: Fn(Vec<HandlerItem>) -> Fut + Send + Sync,
    Fut: Future<Output = Vec<Result<T, Failure>>> + Send,
    T: Serialize + 'static,
{
    BatchHandler {
        handle,
        clock: None,
    }
}

/// See [`handler`].
pub struct Handler<F> {
    handle: F,
    clock: Option<Arc<dyn Clock>>,
}

impl<F> Handler<F> {
    /// Stopped calls may go on for their grace, as measured by this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}

/// See [`batch_handler`].
pub struct BatchHandler<F> {
    handle: F,
    clock: Option<Arc<dyn Clock>>,
}

impl<F> BatchHandler<F> {
    /// Stopped calls may go on for their grace, as measured by this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}

#[async_trait]
impl<F, Fut, T> Executor for Handler<F>
where
    F: Fn(HandlerItem) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Failure>> + Send,
    T: Serialize + 'static,
{
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let patience = Patience::new(&call, &stop, self.clock.as_ref());
        let mut items = Vec::with_capacity(call.items.len());
        for item in &call.items {
            let item = HandlerItem::new(&call.run, item, &stop);
            // Within the future, so that a panic before its first await is caught as well.
            let handling = async { (self.handle)(item).await.and_then(output_of) };
            items.push(match patience.bear(handling).await {
                Ok(Ok(output)) => ItemReport::Succeeded(output),
                Ok(Err(failure)) | Err(Broken::Panicked(failure)) => ItemReport::Failed(failure),
                Err(Broken::Stopped) => ItemReport::Undecided(stopped()),
            });
        }
        CallReport { items }
    }
}

#[async_trait]
impl<F, Fut, T> Executor for BatchHandler<F>
where
    F: Fn(Vec<HandlerItem>) -> Fut + Send + Sync,
    Fut: Future<Output = Vec<Result<T, Failure>>> + Send,
    T: Serialize + 'static,
{
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let patience = Patience::new(&call, &stop, self.clock.as_ref());
        let item = |item| HandlerItem::new(&call.run, item, &stop);
        let items = call.items.iter().map(item).collect();
        let handling = async {
            let results = (self.handle)(items).await.into_iter();
            results
                .map(|result| result.and_then(output_of))
                .collect::<Vec<_>>()
        };
        let count = call.items.len();
        let results = match patience.bear(handling).await {
            Ok(results) if results.len() == count => results,
            Ok(results) => {
                let given = results.len();
                let cause = format!("the handler answered {given} results for {count} items");
                return unanswered(count, Failure::new(Class::BadOutput, cause));
            }
            Err(Broken::Panicked(failure)) => return unanswered(count, failure),
            Err(Broken::Stopped) => return CallReport::undecided(count, &stopped()),
        };
        let items = results.into_iter().map(|result| match result {
            Ok(output) => ItemReport::Succeeded(output),
            Err(failure) => ItemReport::Failed(failure),
        });
        CallReport {
            items: items.collect(),
        }
    }
}

/// The failure of a call that carries one item is known of that item.
fn unanswered(items: usize, failure: Failure) -> CallReport {
    if items == 1 {
        return CallReport {
            items: vec![ItemReport::Failed(failure)],
        };
    }
    CallReport::undecided(items, &failure)
}

fn stopped() -> Failure {
    Failure::new(Class::Crashed, "stopped")
}

/// Why a handler's future gave no result.
enum Broken {
    Panicked(Failure),
    Stopped,
}

/// How long a handler is borne with.
struct Patience<'a> {
    stop: &'a Stop,
    grace: Duration,
    clock: Option<&'a Arc<dyn Clock>>,
}

impl<'a> Patience<'a> {
    fn new(call: &Call, stop: &'a Stop, clock: Option<&'a Arc<dyn Clock>>) -> Self {
        Self {
            stop,
            grace: call.grace,
            clock,
        }
    }

    /// The future's result, unless it panics or is out of time. Nothing begins after a stop.
    async fn bear<T>(&self, future: impl Future<Output = T> + Send) -> Result<T, Broken> {
        if self.stop.is_cancelled() {
            return Err(Broken::Stopped);
        }
        tokio::select! {
            biased;
            // First, so that a handler that is done at once costs no registration with the stop.
            result = AssertUnwindSafe(future).catch_unwind() => {
                result.map_err(|payload| Broken::Panicked(crash(payload.as_ref())))
            }
            () = self.end() => Err(Broken::Stopped),
        }
    }

    /// Completes when a stopped call's time is over.
    async fn end(&self) {
        self.stop.cancelled().await;
        if let Some(clock) = self.clock {
            clock.sleep(self.grace).await;
        }
    }
}

fn crash(payload: &(dyn Any + Send)) -> Failure {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    Failure::new(Class::Crashed, format!("the handler panicked: {text}"))
}

/// An answer as an output. The comparison of types is made when this is compiled.
fn output_of<T: Serialize + 'static>(answer: T) -> Result<Output, Failure> {
    if TypeId::of::<T>() == TypeId::of::<()>() {
        return Ok(Output::None);
    }
    let bad = |cause: String| Failure::new(Class::BadOutput, cause);
    let json = serde_json::to_string(&answer).map_err(|error| bad(format!("as JSON: {error}")))?;
    if json.len() > OUTPUT_BYTES_MAX {
        return Err(bad(format!("it is longer than {OUTPUT_BYTES_MAX} bytes")));
    }
    Ok(Output::Json(json.into()))
}

#[cfg(test)]
mod tests;
