//! What a failed request means to its caller.
//!
//! A pure function of two things: how far the request came, and the service's error code. Ports then
//! put the answer in their own words. One request, one verdict: where the SDK tried several times, a
//! verdict speaks of its last try only, which is why ledger writes go once.

use std::error::Error;
use std::io;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::core::class::cut;
use crate::ports::{ObjectsError, QueueError, TableError};

/// A cause longer than this helps nobody; some services send whole documents.
const TEXT_BYTES_MAX: usize = 1000;

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It was never built: configuration, credentials, a bad field.
    NotBuilt,
    /// It never left: nobody listens there, or the name is unknown.
    NotSent,
    /// It was sent, or may have been, and no whole answer came.
    NoAnswer,
    /// It was answered with this HTTP status.
    Answered(u16),
}

/// A failed request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// How far it came.
    pub(super) reach: Reach,
    /// The service's code; empty if there was none.
    pub(super) code: String,
    /// For people.
    pub(super) text: String,
}

/// What to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A condition did not hold; nothing was done.
    Condition,
    /// Somebody else was at it; nothing was done.
    Conflict,
    /// Too fast; nothing was done.
    Throttled,
    /// It never got there; nothing was done, and it may work later.
    Unreachable,
    /// It may or may not have been done.
    Unclear,
    /// There is no such object.
    NotFound,
    /// Trying again will not help; this may.
    Refused(&'static str),
}

const HELP_ACCESS: &str = "the credentials may not do this (for S3 also: a missing object, where listing is not \
     allowed): give them the policy that `trommel provision` prints";
const HELP_CREDENTIALS: &str = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN or the profile, and this machine's clock";
const HELP_MISSING: &str =
    "create it with `trommel provision`, or check its name, the region and the account";
const HELP_RULE: &str = "the service does not take such a request";
const HELP_CONFIG: &str =
    "check AWS_REGION, AWS_PROFILE and AWS_ENDPOINT_URL, and that there are credentials";
const HELP_REGION: &str = "the bucket is in another region: set AWS_REGION to it";
const HELP_ARCHIVED: &str = "the object is archived: restore it first";
const HELP_TOKEN: &str = "one token was used for two different transactions";

impl Fault {
    /// What the SDK says about a failed request.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let code = answer.err().code().unwrap_or_default().to_owned();
                let message = answer.err().message().unwrap_or("no further word");
                let status = answer.raw().status().as_u16();
                let text = cut(&format!("{code} ({status}): {message}"), TEXT_BYTES_MAX).to_owned();
                Self {
                    reach: Reach::Answered(status),
                    code,
                    text,
                }
            }
            SdkError::ConstructionFailure(_) => Self::unanswered(Reach::NotBuilt, error),
            SdkError::DispatchFailure(_) => Self::unanswered(dispatch_reach(error), error),
            // A time-out, an answer that could not be read, and whatever the SDK adds one day
            // (the enum is not ours and not closed): the safe word is that nobody knows.
            _ => Self::unanswered(Reach::NoAnswer, error),
        }
    }

    /// The outer links of the chain say "dispatch failure" and show whole requests; its root says what
    /// happened.
    fn unanswered(reach: Reach, error: &(dyn Error + 'static)) -> Self {
        let root = chain(error).last().map(ToString::to_string);
        let text = root.unwrap_or_default();
        let text = text.lines().next().unwrap_or_default();
        let text = text.trim_end_matches(". Attempted:");
        Self {
            reach,
            code: String::new(),
            text: cut(text, TEXT_BYTES_MAX).to_owned(),
        }
    }

    /// What to make of it.
    pub(super) fn verdict(&self) -> Verdict {
        match self.reach {
            Reach::NotBuilt => Verdict::Refused(HELP_CONFIG),
            Reach::NotSent => Verdict::Unreachable,
            Reach::NoAnswer => Verdict::Unclear,
            Reach::Answered(status) => answered(&self.code, status),
        }
    }

    /// Whether a range began behind the object's last byte.
    pub(super) fn is_beyond_end(&self) -> bool {
        self.reach == Reach::Answered(416)
    }

    /// For people who set things up: what happened, and what to do.
    pub(super) fn told(&self) -> String {
        match self.verdict() {
            Verdict::Unreachable => self.unreachable(),
            Verdict::NotFound => self.helped(HELP_MISSING),
            Verdict::Refused(help) => self.helped(help),
            Verdict::Throttled | Verdict::Unclear => self.helped("try again"),
            Verdict::Condition | Verdict::Conflict => {
                self.helped("somebody else changes it: try again")
            }
        }
    }

    /// In a table's words.
    pub(super) fn table(self) -> TableError {
        match self.verdict() {
            Verdict::Condition => TableError::ConditionFailed { failed: vec![0] },
            Verdict::Conflict => TableError::Conflict,
            // Nothing was written and it may go later: that is what `Throttled` tells a caller.
            Verdict::Throttled => TableError::Throttled(self.text),
            Verdict::Unreachable => TableError::Throttled(self.unreachable()),
            Verdict::Unclear => TableError::Unclear(self.text),
            Verdict::NotFound => TableError::Refused(self.helped(HELP_MISSING)),
            Verdict::Refused(help) => TableError::Refused(self.helped(help)),
        }
    }

    /// In a queue's words.
    pub(super) fn queue(self) -> QueueError {
        match self.verdict() {
            Verdict::Throttled => QueueError::Throttled(self.text),
            Verdict::Unreachable => QueueError::Throttled(self.unreachable()),
            Verdict::Unclear | Verdict::Conflict => QueueError::Unclear(self.text),
            Verdict::NotFound => QueueError::Refused(self.helped(HELP_MISSING)),
            Verdict::Condition => QueueError::Refused(self.helped(HELP_RULE)),
            Verdict::Refused(help) => QueueError::Refused(self.helped(help)),
        }
    }

    /// In a store's words, about the object that `place` names; a condition that failed is
    /// `on_condition`'s to name.
    pub(super) fn objects(
        self,
        place: String,
        on_condition: impl FnOnce(String) -> ObjectsError,
    ) -> ObjectsError {
        match self.verdict() {
            Verdict::Condition => on_condition(place),
            Verdict::NotFound => ObjectsError::NotFound(place),
            Verdict::Unreachable => {
                ObjectsError::Unavailable(format!("{place}: {}", self.unreachable()))
            }
            Verdict::Throttled | Verdict::Unclear | Verdict::Conflict => {
                ObjectsError::Unavailable(format!("{place}: {}", self.text))
            }
            Verdict::Refused(help) => {
                ObjectsError::Refused(format!("{place}: {}", self.helped(help)))
            }
        }
    }

    fn unreachable(&self) -> String {
        let text = &self.text;
        format!("the service cannot be reached ({text}); check AWS_ENDPOINT_URL and the network")
    }

    fn helped(&self, help: &str) -> String {
        format!("{}; {help}", self.text)
    }
}

/// What an answered failure means, by its code and then by its status.
fn answered(code: &str, status: u16) -> Verdict {
    // SQS's old names of errors carry a prefix.
    let code = code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code);
    match code {
        "ConditionalCheckFailedException" | "PreconditionFailed" => Verdict::Condition,
        "TransactionConflictException"
        | "ReplicatedWriteConflictException"
        | "ConditionalRequestConflict"
        | "OperationAborted" => Verdict::Conflict,
        "ProvisionedThroughputExceededException"
        | "ProvisionedThroughputExceeded"
        | "ThrottlingException"
        | "ThrottlingError"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "LimitExceededException"
        | "KmsThrottled"
        | "OverLimit"
        | "SlowDown" => Verdict::Throttled,
        // The first try of the same transaction is still going on: it may yet be written, so this is
        // no conflict, after which nothing is.
        "TransactionInProgressException"
        | "InternalServerError"
        | "InternalError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "RequestTimeoutException" => Verdict::Unclear,
        "NoSuchKey" | "NotFound" | "NoSuchVersion" | "NoSuchUpload" => Verdict::NotFound,
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedAccess" | "Forbidden" => {
            Verdict::Refused(HELP_ACCESS)
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => Verdict::Refused(HELP_CREDENTIALS),
        "ResourceNotFoundException"
        | "QueueDoesNotExist"
        | "QueueDeletedRecently"
        | "NonExistentQueue"
        | "NoSuchBucket" => Verdict::Refused(HELP_MISSING),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" => Verdict::Refused(HELP_REGION),
        "InvalidObjectState" => Verdict::Refused(HELP_ARCHIVED),
        "IdempotentParameterMismatchException" | "IdempotentParameterMismatch" => {
            Verdict::Refused(HELP_TOKEN)
        }
        // Codes are the services' own and without end; the status says the rest.
        _ => by_status(status),
    }
}

/// For codes we do not know, and answers to HEAD, which carry none.
fn by_status(status: u16) -> Verdict {
    match status {
        404 => Verdict::NotFound,
        408 => Verdict::Unclear,
        412 => Verdict::Condition,
        429 => Verdict::Throttled,
        401 | 403 => Verdict::Refused(HELP_ACCESS),
        301 | 307 => Verdict::Refused(HELP_REGION),
        400..=499 => Verdict::Refused(HELP_RULE),
        // Most are 5xx: the service may have done it before it stumbled.
        _ => Verdict::Unclear,
    }
}

/// Why a transaction was cancelled, by its reasons' codes, one for each write ("TransactWriteItems",
/// CancellationReasons). Nothing was written.
pub(super) fn cancelled(codes: &[&str], text: &str) -> TableError {
    let verdict = |code: &str| match code {
        // These two exist as reasons only.
        "ConditionalCheckFailed" => Verdict::Condition,
        "TransactionConflict" => Verdict::Conflict,
        _ => answered(code, 400),
    };
    let verdicts: Vec<Option<Verdict>> = codes
        .iter()
        .map(|code| (*code != "None" && !code.is_empty()).then(|| verdict(code)))
        .collect();
    let failed: Vec<usize> = (0..verdicts.len())
        .filter(|index| verdicts[*index] == Some(Verdict::Condition))
        .collect();
    let text = cut(text, TEXT_BYTES_MAX);
    // A refusal first: trying again would never end. Then what tells the caller most.
    let refused = verdicts.iter().flatten().any(|verdict| match verdict {
        Verdict::Refused(_) | Verdict::NotFound => true,
        Verdict::Condition
        | Verdict::Conflict
        | Verdict::Throttled
        | Verdict::Unreachable
        | Verdict::Unclear => false,
    });
    if refused {
        return TableError::Refused(format!("{text}; {HELP_RULE}"));
    }
    if !failed.is_empty() {
        return TableError::ConditionFailed { failed };
    }
    if verdicts.contains(&Some(Verdict::Conflict)) {
        return TableError::Conflict;
    }
    if verdicts.contains(&Some(Verdict::Throttled)) {
        return TableError::Throttled(text.to_owned());
    }
    TableError::Unclear(text.to_owned())
}

/// An error and its sources, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |link| (*link).source())
}

/// How the SDK speaks of requests that it could not put together.
const NOT_BUILT: [&str; 4] = [
    "credentials",
    "failed to apply endpoint",
    "Missing Region",
    "missing signing region",
];

/// Whether a request that failed on its way can have left this machine.
fn dispatch_reach(error: &(dyn Error + 'static)) -> Reach {
    for link in chain(error) {
        let connect = link.downcast_ref::<io::Error>();
        if connect.is_some_and(|io| never_connected(io.kind())) {
            return Reach::NotSent;
        }
        // The SDK has no types for these; its words are all there is to go by.
        let text = link.to_string();
        if text.contains("failed to lookup address") {
            return Reach::NotSent;
        }
        if NOT_BUILT.iter().any(|words| text.contains(words)) {
            return Reach::NotBuilt;
        }
    }
    Reach::NoAnswer
}

/// Kinds that only `connect` gives; a reset or a broken pipe may come after the last byte was sent.
fn never_connected(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    [ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&kind)
}

#[cfg(test)]
mod tests;
