//! Calls, for the tests of the executors on AWS.

use std::sync::Arc;
use std::time::Duration;

use crate::core::id::{Epoch, Generation, ItemId, RunId};
use crate::core::item::Input;
use crate::ports::executor::{Call, CallItem};

/// A value, as an input.
pub(crate) fn value(json: &str) -> Input {
    Input::Value(json.into())
}

/// A call of these inputs; more than one go as a batch.
pub(crate) fn call_of(inputs: Vec<Input>) -> Call {
    let item = |(index, input)| CallItem {
        id: ItemId {
            part: 3,
            number: 17,
            index,
        },
        attempt: 1,
        epoch: Epoch(5),
        generation: Generation(0),
        input: Arc::new(input),
    };
    Call {
        run: RunId::new("brave-heron-4f2a"),
        batch: inputs.len() > 1,
        items: (0..).zip(inputs).map(item).collect(),
        grace: Duration::from_secs(1),
    }
}
