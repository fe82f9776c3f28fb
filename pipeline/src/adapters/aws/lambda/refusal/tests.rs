use aws_sdk_lambda::types::error::TooManyRequestsException;

use super::super::super::classify::Reach;
use super::*;
use crate::ports::executor::ItemReport;

fn answered(code: &str, status: u16) -> Refusal {
    Refusal::by(&fault(Reach::Answered(status), code))
}

fn fault(reach: Reach, code: &str) -> Fault {
    Fault {
        reach,
        code: code.to_owned(),
        text: format!("{code} happened"),
    }
}

fn class_of(refusal: &Refusal) -> &Class {
    match refusal {
        Refusal::NotRun(failure) | Refusal::Unclear(failure) => &failure.class,
    }
}

#[test]
fn what_certainly_did_not_run_says_why_in_its_class() {
    for (code, status, class) in [
        ("TooManyRequestsException", 429, Class::Throttled),
        ("EC2ThrottledException", 502, Class::Throttled),
        ("", 429, Class::Throttled),
        ("RequestTooLargeException", 413, Class::BadInput),
        ("InvalidRequestContentException", 400, Class::BadInput),
        ("ResourceNotFoundException", 404, Class::Unavailable),
        ("AccessDeniedException", 403, Class::Unavailable),
        ("ExpiredTokenException", 403, Class::Unavailable),
        ("InvalidRuntimeException", 502, Class::Unavailable),
        ("ResourceConflictException", 409, Class::Unavailable),
        ("KMSDisabledException", 502, Class::Unavailable),
        ("EFSMountTimeoutException", 408, Class::Unavailable),
        ("RecursiveInvocationException", 400, Class::Unavailable),
    ] {
        let refusal = answered(code, status);
        assert!(matches!(refusal, Refusal::NotRun(_)), "{code}: {refusal:?}");
        assert_eq!(class_of(&refusal), &class, "{code}");
    }
}

#[test]
fn a_request_that_never_left_did_not_run_and_one_without_an_answer_may_have() {
    let never = Refusal::by(&fault(Reach::NotSent, ""));
    assert!(matches!(never, Refusal::NotRun(_)), "{never:?}");
    assert_eq!(class_of(&never), &Class::Unavailable);
    for unclear in [
        Refusal::by(&fault(Reach::NoAnswer, "")),
        answered("ServiceException", 500),
        answered("", 502),
        answered("", 504),
    ] {
        assert!(matches!(unclear, Refusal::Unclear(_)), "{unclear:?}");
        assert_eq!(class_of(&unclear), &Class::Crashed);
    }
}

#[test]
fn nothing_is_decided_of_an_unclear_call_and_of_many_items_never() {
    let unclear = answered("ServiceException", 500);
    for items in [1, 3] {
        let report = unclear.report(items).items;
        assert_eq!(report.len(), items);
        let undecided = |report: &ItemReport| matches!(report, ItemReport::Undecided(_));
        assert!(report.iter().all(undecided), "{report:?}");
    }
    let throttled = answered("TooManyRequestsException", 429);
    assert!(matches!(
        throttled.report(1).items[..],
        [ItemReport::Failed(_)]
    ));
    assert!(matches!(
        throttled.report(2).items[..],
        [ItemReport::Undecided(_), ItemReport::Undecided(_)]
    ));
}

#[test]
fn a_throttle_says_which_limit_it_met() {
    for reason in [
        "ConcurrentInvocationLimitExceeded",
        "ReservedFunctionConcurrentInvocationLimitExceeded",
        "FunctionInvocationRateLimitExceeded",
        "ReservedFunctionInvocationRateLimitExceeded",
        "CallerRateLimitExceeded",
        "ConcurrentSnapshotCreateLimitExceeded",
        "OneThatIsYetToCome",
    ] {
        let error = TooManyRequestsException::builder()
            .reason(reason.into())
            .message("Rate Exceeded.")
            .meta(
                aws_sdk_lambda::error::ErrorMetadata::builder()
                    .code("TooManyRequestsException")
                    .message("Rate Exceeded.")
                    .build(),
            )
            .build();
        let raw = HttpResponse::new(
            429.try_into().expect("a status"),
            aws_smithy_types::body::SdkBody::empty(),
        );
        let error = SdkError::service_error(InvokeError::TooManyRequestsException(error), raw);
        let Refusal::NotRun(failure) = Refusal::of(&error) else {
            panic!("a throttled call did not run");
        };
        assert_eq!(failure.class, Class::Throttled);
        assert!(failure.cause.contains(reason), "{}", failure.cause);
        assert!(
            failure.cause.contains("Rate Exceeded."),
            "{}",
            failure.cause
        );
    }
}
