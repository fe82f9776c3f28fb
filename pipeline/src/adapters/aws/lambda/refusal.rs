//! What it means that Lambda did not carry out a call. Pure, but for reading the SDK's error.
//!
//! Two kinds are kept apart: the function certainly did not run, and nobody knows. What a function itself reports is not here
//! but in [`crate::adapters::invocation`].

use aws_sdk_lambda::config::http::HttpResponse;
use aws_sdk_lambda::error::SdkError;
use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_lambda::types::ThrottleReason;

use super::super::classify::{Fault, Verdict};
use crate::adapters::invocation::not_said;
use crate::core::class::{Class, Failure};
use crate::ports::executor::CallReport;

/// A call that was not answered by its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The function did not run.
    NotRun(Failure),
    /// It may have run, or may run still.
    Unclear(Failure),
}

const HELP_FUNCTION: &str = "check the function's name, its alias, the region and the account";
const HELP_ACCESS: &str =
    "allow lambda:InvokeFunction on it, as the policy that `trommel provision` prints does";
const HELP_STATE: &str =
    "the function is being made or changed: it works as soon as its state is Active";
const HELP_SETUP: &str = "the function cannot start as it is set up: mend its configuration";
const HELP_LOOP: &str = "the function starts itself again through this job; break the loop, or allow it (\"Recursive loop detection\")";

impl Refusal {
    /// What the SDK says about a call that failed.
    pub(super) fn of(error: &SdkError<InvokeError, HttpResponse>) -> Self {
        let mut fault = Fault::of(error);
        let reason = error.as_service_error().and_then(throttle_reason);
        if let Some(reason) = reason {
            fault.text = format!("{}: {}", reason.as_str(), fault.text);
        }
        Self::by(&fault)
    }

    fn by(fault: &Fault) -> Self {
        let text = &fault.text;
        let not_run = |class, cause: String| Self::NotRun(Failure::new(class, cause));
        let unavailable =
            |help: &str| not_run(Class::Unavailable, format!("Lambda: {text}; {help}"));
        match Meaning::of(fault) {
            Meaning::Throttled => not_run(Class::Throttled, format!("Lambda: {text}")),
            Meaning::BadInput => not_run(
                Class::BadInput,
                format!("Lambda takes no such event: {text}"),
            ),
            Meaning::Unavailable(help) => unavailable(help),
            Meaning::Unreachable => unavailable("check AWS_ENDPOINT_URL and the network"),
            Meaning::Unclear => Self::Unclear(Failure::new(
                Class::Crashed,
                format!("no answer, and the function may have run: {text}"),
            )),
        }
    }

    /// As a report of so many items. What is known of a call is known of its one item; of an unclear one nothing is.
    pub(super) fn report(&self, items: usize) -> CallReport {
        match self {
            Self::NotRun(failure) => CallReport {
                items: not_said(items, failure),
            },
            Self::Unclear(failure) => CallReport::undecided(items, failure),
        }
    }
}

fn throttle_reason(error: &InvokeError) -> Option<&ThrottleReason> {
    match error {
        InvokeError::TooManyRequestsException(error) => error.reason(),
        // The SDK's enum, and not closed.
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Throttled,
    BadInput,
    Unavailable(&'static str),
    Unreachable,
    Unclear,
}

impl Meaning {
    /// By the codes of "Invoke", errors. Many come with a status of 502, which elsewhere says that nobody knows; these say
    /// that Lambda could not start the function.
    fn of(fault: &Fault) -> Self {
        match fault.code.as_str() {
            "TooManyRequestsException" | "EC2ThrottledException" => Self::Throttled,
            "RequestTooLargeException"
            | "SerializedRequestEntityTooLargeException"
            | "InvalidRequestContentException"
            | "UnsupportedMediaTypeException" => Self::BadInput,
            "ResourceNotFoundException" | "NoPublishedVersionException" => {
                Self::Unavailable(HELP_FUNCTION)
            }
            "ResourceNotReadyException"
            | "ResourceConflictException"
            | "SnapStartNotReadyException"
            | "ENINotReadyException"
            | "CodeArtifactUserPendingException" => Self::Unavailable(HELP_STATE),
            "InvalidRuntimeException"
            | "InvalidZipFileException"
            | "InvalidSecurityGroupIDException"
            | "InvalidSubnetIDException"
            | "InvalidParameterValueException"
            | "ModeNotSupportedException"
            | "EC2AccessDeniedException"
            | "EC2UnexpectedException"
            | "EFSIOException"
            | "EFSMountConnectivityException"
            | "EFSMountFailureException"
            | "EFSMountTimeoutException"
            | "ENILimitReachedException"
            | "SubnetIPAddressLimitReachedException"
            | "S3FilesMountConnectivityException"
            | "S3FilesMountFailureException"
            | "S3FilesMountTimeoutException"
            | "SnapStartException"
            | "SnapStartTimeoutException"
            | "SnapStartRegenerationFailureException"
            | "KMSAccessDeniedException"
            | "KMSDisabledException"
            | "KMSInvalidStateException"
            | "KMSNotFoundException"
            | "CodeArtifactUserDeletedException"
            | "CodeArtifactUserFailedException"
            | "ServiceQuotaExceededException" => Self::Unavailable(HELP_SETUP),
            "RecursiveInvocationException" => Self::Unavailable(HELP_LOOP),
            "AccessDeniedException" => Self::Unavailable(HELP_ACCESS),
            // Codes are Lambda's own and without end; what all services have in common says the rest.
            _ => Self::by_verdict(fault.verdict()),
        }
    }

    fn by_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Throttled => Self::Throttled,
            Verdict::Unreachable => Self::Unreachable,
            Verdict::NotFound => Self::Unavailable(HELP_FUNCTION),
            Verdict::Refused(help) => Self::Unavailable(help),
            Verdict::Unclear | Verdict::Condition | Verdict::Conflict => Self::Unclear,
        }
    }
}

#[cfg(test)]
mod tests;
