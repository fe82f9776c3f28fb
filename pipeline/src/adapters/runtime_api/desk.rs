//! The desk between a call and a process: an event lies there until the process takes it, and its answer until the call does.
//!
//! What travels over the wire is not known here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Notify;

use super::process::Tail;
use crate::adapters::invocation::Invocation;

/// An event for a function.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The request's id, as Lambda's are: a UUID.
    pub(super) id: String,
    pub(super) event: Bytes,
    pub(super) context: String,
    /// Milliseconds since 1970 at which it is given up.
    pub(super) deadline_ms: u128,
}

impl Task {
    pub(super) fn new(invocation: Invocation, timeout: Duration) -> Self {
        let deadline = SystemTime::now() + timeout;
        let since = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: request_id(rand::random()),
            event: Bytes::from(invocation.event),
            context: invocation.context,
            deadline_ms: since.as_millis(),
        }
    }
}

/// A UUID of version 4 (RFC 9562, 5.4) from random bits.
fn request_id(bits: u128) -> String {
    let version = (bits & !(0xf << 76)) | (0x4 << 76);
    let uuid = (version & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{uuid:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// What a function said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answer(Bytes),
    Error {
        body: Bytes,
        /// The type that stood in a header.
        kind: Option<String>,
        /// What its process wrote since the event was taken.
        log: Vec<u8>,
    },
    /// More than an answer may hold.
    TooLong,
}

/// A process does not get as far as asking for work, and says why.
#[derive(Clone, Debug)]
pub(super) struct InitError {
    pub(super) body: Bytes,
    pub(super) kind: Option<String>,
}

/// The request is not the one under way.
#[derive(Debug)]
pub(super) struct NotAsked;

#[derive(Default)]
struct State {
    /// Lies there.
    waiting: Option<Task>,
    /// The id of what was taken.
    taken: Option<String>,
    /// What was said of it.
    answer: Option<Said>,
    /// Whether nobody has heard of that yet.
    is_untold: bool,
    /// Whether the process ever asked for work.
    is_up: bool,
    init_error: Option<InitError>,
}

/// One process's desk.
pub(super) struct Desk {
    state: Mutex<State>,
    /// An event was laid down.
    laid: Notify,
    /// An answer was.
    answered: Notify,
    /// The process asked for the first time, or said that it cannot.
    up: Notify,
    pub(super) tail: Arc<Tail>,
}

impl Desk {
    pub(super) fn new(tail: Arc<Tail>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            laid: Notify::new(),
            answered: Notify::new(),
            up: Notify::new(),
            tail,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays an event down.
    pub(super) fn lay(&self, task: Task) {
        let mut state = self.state();
        state.waiting = Some(task);
        state.answer = None;
        drop(state);
        self.laid.notify_one();
    }

    /// Takes the answer to what was laid down, as soon as there is one.
    pub(super) async fn answer(&self) -> Said {
        loop {
            if let Some(said) = self.take_answer() {
                return said;
            }
            self.answered.notified().await;
        }
    }

    pub(super) fn take_answer(&self) -> Option<Said> {
        self.state().answer.take()
    }

    /// Whether the event that was laid down last still lies there.
    pub(super) fn is_untaken(&self) -> bool {
        self.state().waiting.is_some()
    }

    /// Takes an event, as soon as there is one. Asking for the next one ends what was under way: nobody answers it any more.
    pub(super) async fn next(&self) -> Task {
        {
            let mut state = self.state();
            state.is_up = true;
            state.taken = None;
        }
        self.up.notify_one();
        loop {
            if let Some(task) = self.take() {
                return task;
            }
            self.laid.notified().await;
        }
    }

    fn take(&self) -> Option<Task> {
        let mut state = self.state();
        let task = state.waiting.take()?;
        state.taken = Some(task.id.clone());
        drop(state);
        self.tail.begin();
        Some(task)
    }

    /// Takes what the function said of this request. Whoever asked finds it here, and hears of it by [`Desk::tell`].
    pub(super) fn said(&self, id: &str, said: Said) -> Result<(), NotAsked> {
        let mut state = self.state();
        state.taken.take_if(|taken| taken == id).ok_or(NotAsked)?;
        state.answer = Some(said);
        state.is_untold = true;
        Ok(())
    }

    /// Wakes whoever asked, if there is an answer. Called when the process has been told that its answer came: it can do nothing
    /// before, and asks for the next event while the last one's asker wakes up.
    pub(super) fn tell(&self) {
        let is_untold = std::mem::take(&mut self.state().is_untold);
        if is_untold {
            self.answered.notify_one();
        }
    }

    /// The process cannot start.
    pub(super) fn cannot_start(&self, error: InitError) {
        self.state().init_error = Some(error);
        self.up.notify_one();
    }

    /// Returns when the process has asked for work.
    pub(super) async fn up(&self) -> Result<(), InitError> {
        loop {
            {
                let state = self.state();
                if state.is_up {
                    return Ok(());
                }
                if let Some(error) = &state.init_error {
                    return Err(error.clone());
                }
            }
            self.up.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn task() -> Task {
        let invocation = Invocation {
            event: "1".to_owned(),
            context: String::new(),
        };
        Task::new(invocation, Duration::from_secs(1))
    }

    #[tokio::test]
    async fn an_answer_lies_there_before_its_asker_is_woken() {
        let desk = Desk::new(Arc::default());
        desk.lay(task());
        let mut asker = std::pin::pin!(desk.answer());
        assert!(asker.as_mut().now_or_never().is_none());
        let taken = desk.next().await;
        assert!(desk.said("another", Said::TooLong).is_err());
        desk.said(&taken.id, Said::TooLong).expect("it was asked");
        // Its process may die here: whoever hears of that looks first whether it has answered.
        assert_eq!(desk.take_answer(), Some(Said::TooLong));
        assert!(desk.said(&taken.id, Said::TooLong).is_err(), "once");
    }

    #[tokio::test]
    async fn an_asker_who_waits_is_woken_when_it_is_told() {
        let desk = Desk::new(Arc::default());
        desk.lay(task());
        let waiting = Arc::clone(&desk);
        let asker = tokio::spawn(async move { waiting.answer().await });
        let taken = desk.next().await;
        desk.said(&taken.id, Said::TooLong).expect("it was asked");
        desk.tell();
        let heard = tokio::time::timeout(Duration::from_secs(10), asker).await;
        assert_eq!(heard.expect("it is woken").expect("it ends"), Said::TooLong);
    }

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        assert_eq!(request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(
            request_id(u128::MAX),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }
}
