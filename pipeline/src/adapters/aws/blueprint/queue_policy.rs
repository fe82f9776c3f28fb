//! A queue's policy: a service's leave to send put among the statements of others, and found again. Pure.

use serde_json::{Value, json};

/// Who sends the events of buckets.
pub(super) const S3: &str = "s3.amazonaws.com";

/// The service may send to the queue what this source tells; of the account, where it is known and the source's ARN does not
/// say it, so that nobody else's bucket of that name may ("confused deputy", "Granting permissions to publish event
/// notification messages").
pub(super) fn statement(
    sid: &str,
    service: &str,
    queue_arn: &str,
    source_arn: &str,
    account: Option<&str>,
) -> Value {
    let mut condition = json!({ "ArnEquals": { "aws:SourceArn": source_arn } });
    if let Some(account) = account {
        condition["StringEquals"] = json!({ "aws:SourceAccount": account });
    }
    json!({
        "Sid": sid,
        "Effect": "Allow",
        "Principal": { "Service": service },
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": condition,
    })
}

/// The policy with this statement in it, in the place of a former one of its name; none if it is there already.
///
/// # Errors
/// The policy is none that can be added to.
pub(super) fn merged(policy: Option<&str>, ours: &Value) -> Result<Option<String>, String> {
    let mut document = match policy.filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| format!("its policy is no JSON ({error}): repair it first"))?,
        None => json!({ "Version": "2012-10-17", "Statement": [] }),
    };
    let mut statements = statements(&document);
    if statements.contains(ours) {
        return Ok(None);
    }
    statements.retain(|statement| statement["Sid"] != ours["Sid"]);
    statements.push(ours.clone());
    let Some(fields) = document.as_object_mut() else {
        return Err("its policy is no JSON object: repair it first".to_owned());
    };
    fields.insert("Statement".to_owned(), Value::Array(statements));
    Ok(Some(document.to_string()))
}

/// Whether a statement lets S3 send what happens in this bucket. Statements that deny are not weighed.
pub(in crate::adapters::aws) fn lets_send(
    policy: Option<&str>,
    queue_arn: &str,
    bucket_arn: &str,
) -> bool {
    let document = policy.and_then(|text| serde_json::from_str(text).ok());
    let Some(document) = document else {
        return false;
    };
    statements(&document).iter().any(|statement| {
        statement["Effect"] == "Allow"
            && is_s3(&statement["Principal"])
            && texts(&statement["Action"])
                .iter()
                .any(|action| matches(&action.to_ascii_lowercase(), "sqs:sendmessage"))
            && texts(&statement["Resource"])
                .iter()
                .any(|resource| matches(resource, queue_arn))
            && is_from(&statement["Condition"], bucket_arn)
    })
}

fn statements(document: &Value) -> Vec<Value> {
    match &document["Statement"] {
        Value::Array(all) => all.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

fn is_s3(principal: &Value) -> bool {
    let everybody = |value: &Value| texts(value).iter().any(|text| text == "*");
    let service = texts(&principal["Service"]);
    everybody(principal) || everybody(&principal["AWS"]) || service.iter().any(|name| name == S3)
}

/// Whether the conditions on the source's ARN hold for the bucket; other conditions are not weighed.
fn is_from(condition: &Value, bucket_arn: &str) -> bool {
    let Some(operators) = condition.as_object() else {
        return true;
    };
    let keys = operators.values().filter_map(Value::as_object).flatten();
    let sources = keys.filter(|(key, _)| key.eq_ignore_ascii_case("aws:SourceArn"));
    sources
        .map(|(_, arns)| texts(arns))
        .all(|arns| arns.iter().any(|arn| matches(arn, bucket_arn)))
}

/// One text, or a list of them.
fn texts(value: &Value) -> Vec<String> {
    let own = |text: &Value| text.as_str().map(str::to_owned);
    match value {
        Value::Array(all) => all.iter().filter_map(own).collect(),
        one => own(one).into_iter().collect(),
    }
}

/// Whether a text fits a pattern in which `*` stands for any text and `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| matches(rest, &text[at..]))
        }
        (Some(wanted), Some(is)) if wanted == is || wanted == '?' => {
            matches(&pattern[wanted.len_utf8()..], &text[is.len_utf8()..])
        }
        (Some(_), _) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:inbox";
    const BUCKET: &str = "arn:aws:s3:::photos";

    #[test]
    fn a_policy_is_reviewed_like_code() {
        let ours = statement("trommel-thumbs", S3, QUEUE, BUCKET, Some("123456789012"));
        let users = r#"{"Version":"2012-10-17","Id":"theirs","Statement":{"Sid":"owner","Effect":"Allow",
            "Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"SQS:*","Resource":"*"}}"#;
        let policy = merged(Some(users), &ours).expect("JSON").expect("new");
        let document: Value = serde_json::from_str(&policy).expect("JSON");
        let shown = serde_json::to_string_pretty(&document).expect("JSON");
        insta::assert_snapshot!("queue_policy", shown);
        assert_eq!(merged(Some(&policy), &ours), Ok(None));
        assert!(lets_send(Some(&policy), QUEUE, BUCKET));
    }

    #[test]
    fn a_statement_of_the_same_name_is_replaced_and_what_is_no_policy_is_told() {
        let old = statement("trommel-thumbs", S3, QUEUE, "arn:aws:s3:::old", None);
        let new = statement("trommel-thumbs", S3, QUEUE, BUCKET, None);
        let policy = merged(None, &old).expect("none yet").expect("new");
        assert!(!lets_send(Some(&policy), QUEUE, BUCKET));
        let policy = merged(Some(&policy), &new).expect("JSON").expect("new");
        let document: Value = serde_json::from_str(&policy).expect("JSON");
        assert_eq!(statements(&document), std::slice::from_ref(&new));
        assert!(merged(Some("[]"), &new).is_err());
        assert!(merged(Some("nonsense"), &new).is_err());
    }

    #[test]
    fn leave_that_others_gave_is_leave_too() {
        let policy = |principal: &str, action: &str, arn: &str| {
            format!(
                r#"{{"Statement":[{{"Effect":"Allow","Principal":{principal},"Action":{action},
                "Resource":"{QUEUE}","Condition":{{"ArnLike":{{"aws:SourceArn":"{arn}"}}}}}}]}}"#
            )
        };
        let s3 = r#"{"Service":"s3.amazonaws.com"}"#;
        for (principal, action, arn, expected) in [
            (s3, r#"["SQS:SendMessage"]"#, "arn:aws:s3:*:*:photos", true),
            (r#""*""#, r#""sqs:*""#, "arn:aws:s3:::p*", true),
            (s3, r#""sqs:ReceiveMessage""#, BUCKET, false),
            (s3, r#""sqs:SendMessage""#, "arn:aws:s3:::others", false),
            (
                r#"{"Service":"sns.amazonaws.com"}"#,
                r#""sqs:SendMessage""#,
                BUCKET,
                false,
            ),
        ] {
            let policy = policy(principal, action, arn);
            assert_eq!(
                lets_send(Some(&policy), QUEUE, BUCKET),
                expected,
                "{policy}"
            );
        }
        assert!(!lets_send(None, QUEUE, BUCKET));
    }

    #[test]
    fn a_pattern_of_stars_matches_what_it_should() {
        assert!(matches("a*c", "abbc"));
        assert!(matches("*", ""));
        assert!(matches("a?c", "aäc"));
        assert!(!matches("a*c", "abb"));
    }
}
