//! The verdicts, as tables.

use super::*;

fn fault(reach: Reach, code: &str) -> Fault {
    Fault {
        reach,
        code: code.to_owned(),
        text: "text".to_owned(),
    }
}

#[test]
fn every_answer_gets_the_verdict_its_code_deserves() {
    let cases = [
        ("ConditionalCheckFailedException", 400, Verdict::Condition),
        ("PreconditionFailed", 412, Verdict::Condition),
        ("TransactionConflictException", 400, Verdict::Conflict),
        ("ConditionalRequestConflict", 409, Verdict::Conflict),
        ("TransactionInProgressException", 400, Verdict::Unclear),
        ("ThrottlingException", 400, Verdict::Throttled),
        (
            "ProvisionedThroughputExceededException",
            400,
            Verdict::Throttled,
        ),
        ("SlowDown", 503, Verdict::Throttled),
        ("AWS.SimpleQueueService.OverLimit", 403, Verdict::Throttled),
        ("SomethingNew", 429, Verdict::Throttled),
        ("InternalServerError", 500, Verdict::Unclear),
        ("InternalFailure", 400, Verdict::Unclear),
        ("SomethingNew", 503, Verdict::Unclear),
        ("RequestTimeout", 400, Verdict::Unclear),
        ("NoSuchKey", 404, Verdict::NotFound),
        ("", 404, Verdict::NotFound),
        ("AccessDeniedException", 400, Verdict::Refused(HELP_ACCESS)),
        ("", 403, Verdict::Refused(HELP_ACCESS)),
        ("ExpiredToken", 400, Verdict::Refused(HELP_CREDENTIALS)),
        (
            "InvalidAccessKeyId",
            403,
            Verdict::Refused(HELP_CREDENTIALS),
        ),
        (
            "ResourceNotFoundException",
            400,
            Verdict::Refused(HELP_MISSING),
        ),
        (
            "AWS.SimpleQueueService.NonExistentQueue",
            400,
            Verdict::Refused(HELP_MISSING),
        ),
        ("NoSuchBucket", 404, Verdict::Refused(HELP_MISSING)),
        ("PermanentRedirect", 301, Verdict::Refused(HELP_REGION)),
        ("ValidationException", 400, Verdict::Refused(HELP_RULE)),
        ("InvalidRange", 416, Verdict::Refused(HELP_RULE)),
    ];
    for (code, status, verdict) in cases {
        assert_eq!(answered(code, status), verdict, "{code} {status}");
    }
}

#[test]
fn only_a_request_that_never_left_is_known_not_to_have_been_done() {
    let verdict = |reach| fault(reach, "").verdict();
    assert_eq!(verdict(Reach::NotBuilt), Verdict::Refused(HELP_CONFIG));
    assert_eq!(verdict(Reach::NotSent), Verdict::Unreachable);
    assert_eq!(verdict(Reach::NoAnswer), Verdict::Unclear);
    let unclear = fault(Reach::NoAnswer, "").table();
    assert_eq!(unclear, TableError::Unclear("text".to_owned()));
}

#[test]
fn a_refused_connection_never_left_and_a_reset_one_may_have() {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    assert_eq!(dispatch_reach(&refused), Reach::NotSent);
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    assert_eq!(dispatch_reach(&reset), Reach::NoAnswer);
    let name = io::Error::other("failed to lookup address information: Try again");
    assert_eq!(dispatch_reach(&name), Reach::NotSent);
    let nobody = io::Error::other("no providers in chain provided credentials");
    assert_eq!(dispatch_reach(&nobody), Reach::NotBuilt);
}

#[test]
fn a_refusal_says_what_to_do() {
    let error = fault(Reach::Answered(400), "ResourceNotFoundException").table();
    assert!(error.to_string().contains("trommel provision"), "{error}");
}

#[test]
fn a_cancelled_transaction_names_the_writes_whose_conditions_failed() {
    let cases: [(&[&str], TableError); 6] = [
        (
            &["None", "ConditionalCheckFailed", "ConditionalCheckFailed"],
            TableError::ConditionFailed { failed: vec![1, 2] },
        ),
        (
            &["ConditionalCheckFailed", "TransactionConflict"],
            TableError::ConditionFailed { failed: vec![0] },
        ),
        (&["None", "TransactionConflict"], TableError::Conflict),
        (
            &["ThrottlingError"],
            TableError::Throttled("text".to_owned()),
        ),
        (
            &["ProvisionedThroughputExceeded", "None"],
            TableError::Throttled("text".to_owned()),
        ),
        (&[], TableError::Unclear("text".to_owned())),
    ];
    for (codes, error) in cases {
        assert_eq!(cancelled(codes, "text"), error, "{codes:?}");
    }
    let refused = cancelled(&["ValidationError", "ConditionalCheckFailed"], "text");
    assert!(matches!(refused, TableError::Refused(_)), "{refused:?}");
}
