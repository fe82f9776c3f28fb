//! What each emulator does differently from AWS, as far as a test of ours meets it.
//!
//! A difference stands here with what was seen, and a test that meets it asks the profile: so a
//! difference that goes away shows as a failing test, and none is skipped in silence.

use trommel::core::event::Keys;

/// Which emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// LocalStack 4.14.0, the last that needs no token, with AWS's own DynamoDB Local.
    LocalStack,
    /// MiniStack 1.5.33.
    MiniStack,
    /// Whatever answers at a URL somebody gave.
    Unknown,
}

/// What an endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Writes in one transaction: AWS takes 100. The DynamoDB Local of 2020, which our own image of
    /// LocalStack carries, takes 10 and answers 11 with a ValidationException.
    pub transact_writes_max: usize,
    /// What a delete makes of the handle of a former delivery, or of a message that is deleted already.
    pub former_handles: FormerHandles,
    /// How a listing whose keys are to come percent-encoded is ordered and cut.
    pub encoded_listings: EncodedListings,
    /// How keys are spelled in events.
    pub event_keys: Keys,
    /// Whether it runs functions.
    pub functions: Functions,
}

/// Whether functions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Functions {
    /// In Python, as processes of its own. Reserved concurrency throttles, a function's timeout ends it, its log comes back;
    /// the client context does not reach it, and no REPORT line is in the log. Tasks on ECS run too, as containers of the
    /// Docker at hand; it honours no token of RunTask, and always has room.
    Run,
    /// They need an image of their language's runtime, pulled from a registry, and a Docker to run it.
    NotRun,
}

/// What a delete makes of a handle that was good once. AWS: it succeeds, and the message may stay
/// ("DeleteMessage").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormerHandles {
    /// It succeeds, as on AWS.
    Accepted,
    /// It fails with ReceiptHandleIsInvalid, as for a handle that never was one.
    Refused,
}

/// How a listing with `encoding-type=url` goes ("ListObjectsV2").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedListings {
    /// By the keys, as on AWS.
    ByKey,
    /// By the encoded keys: `start-after=z` cuts off `é`, whose encoding begins with `%`, though it
    /// comes after it. The adapter therefore asks emulators for plain keys.
    BySpelling,
}

impl Kind {
    /// Its name, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LocalStack => "LocalStack",
            Self::MiniStack => "MiniStack",
            Self::Unknown => "an endpoint of unknown kind",
        }
    }

    /// What it can do; of one we do not know, the least that any can.
    pub fn profile(self) -> Profile {
        match self {
            Self::LocalStack => Profile {
                transact_writes_max: 10,
                former_handles: FormerHandles::Accepted,
                encoded_listings: EncodedListings::BySpelling,
                // `%20` for a space, where AWS has `+`, which is the same to whoever decodes forms; but EventBridge's, too.
                event_keys: Keys::Form,
                functions: Functions::NotRun,
            },
            Self::MiniStack => Profile {
                transact_writes_max: 100,
                former_handles: FormerHandles::Refused,
                encoded_listings: EncodedListings::ByKey,
                event_keys: Keys::Aws,
                functions: Functions::Run,
            },
            Self::Unknown => Profile {
                transact_writes_max: 10,
                former_handles: FormerHandles::Refused,
                encoded_listings: EncodedListings::BySpelling,
                event_keys: Keys::Form,
                functions: Functions::NotRun,
            },
        }
    }
}
