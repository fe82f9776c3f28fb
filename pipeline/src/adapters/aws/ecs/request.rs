//! What a task is started with: its token, its variables, who it belongs to. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::core::class::{Class, Failure};
use crate::core::id::RunId;
use crate::core::job::EcsSpec;
use crate::ports::executor::CallItem;

/// The longest overrides, with the characters of their JSON form ("RunTask", overrides).
pub(super) const OVERRIDES_CHARS_MAX: usize = 8192;

/// The longest `startedBy` ("RunTask").
const STARTED_BY_CHARS_MAX: usize = 128;

/// The variable that holds the item, or the pointer to it.
const INPUT: &str = "TROMMEL_INPUT";

/// Names one attempt of one item: whoever starts it again gets the task that there is ("Ensuring idempotency"). A hash, as
/// 64 characters is the most that a token may have.
pub(super) fn token(run: &RunId, item: &CallItem) -> String {
    let CallItem {
        id,
        attempt,
        generation,
        ..
    } = item;
    let named = format!("trommel/{run}/{id}/{generation}/{attempt}");
    let mut token = String::with_capacity(64);
    for byte in Sha256::digest(named) {
        let _ = write!(token, "{byte:02x}");
    }
    token
}

/// For people who look at a cluster: letters, digits, hyphens and slashes only, as run and item have no others.
pub(super) fn started_by(run: &RunId, item: &CallItem) -> String {
    let name = format!("trommel/{run}/{}", item.id);
    crate::core::class::cut(&name, STARTED_BY_CHARS_MAX).to_owned()
}

/// The variables of a task; `input` is the item, or a pointer to it.
pub(super) fn variables(
    spec: &EcsSpec,
    run: &RunId,
    item: &CallItem,
    input: &str,
) -> BTreeMap<String, String> {
    let mut all = spec.environment.clone();
    let own = [
        ("TROMMEL_RUN", run.to_string()),
        ("TROMMEL_ITEM", item.id.to_string()),
        ("TROMMEL_ATTEMPT", item.attempt.to_string()),
        ("TROMMEL_EPOCH", item.epoch.to_string()),
        ("TROMMEL_IDEMPOTENCY_KEY", item.idempotency_key(run)),
        (INPUT, input.to_owned()),
    ];
    all.extend(own.map(|(name, value)| (name.to_owned(), value)));
    all
}

/// # Errors
/// By how much the overrides would be too long, for whoever has no other way.
pub(super) fn check(container: &str, variables: &BTreeMap<String, String>) -> Result<(), Failure> {
    let pairs: Vec<_> = variables
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let container = json!({ "name": container, "environment": pairs });
    let overrides = json!({ "containerOverrides": [container] }).to_string();
    let chars = overrides.chars().count();
    if chars <= OVERRIDES_CHARS_MAX {
        return Ok(());
    }
    let cause = format!(
        "the task's overrides would have {chars} characters, and ECS takes {OVERRIDES_CHARS_MAX}"
    );
    Err(Failure::new(Class::BadInput, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::aws::lambda::testing::{call_of, value};
    use crate::core::id::{Epoch, Generation};

    fn spec() -> EcsSpec {
        EcsSpec {
            cluster: "media".to_owned(),
            task_definition: "thumbnails".to_owned(),
            container: "work".to_owned(),
            subnets: vec!["subnet-1".to_owned()],
            security_groups: Vec::new(),
            capacity_provider: None,
            events_queue: None,
            environment: BTreeMap::from([("LOG_LEVEL".to_owned(), "info".to_owned())]),
        }
    }

    #[test]
    fn a_token_names_one_attempt_of_one_item_and_no_lease() {
        let call = call_of(vec![value("1"), value("2")]);
        let first = &call.items[0];
        let same = CallItem {
            epoch: Epoch(9),
            ..first.clone()
        };
        assert_eq!(token(&call.run, first), token(&call.run, &same));
        let others = [
            token(&call.run, &call.items[1]),
            token(&RunId::new("another-run-1"), first),
            token(
                &call.run,
                &CallItem {
                    attempt: 2,
                    ..first.clone()
                },
            ),
            token(
                &call.run,
                &CallItem {
                    generation: Generation(1),
                    ..first.clone()
                },
            ),
        ];
        for other in others {
            assert_ne!(token(&call.run, first), other);
        }
    }

    #[test]
    fn a_token_is_as_long_as_one_may_be_and_plain() {
        let call = call_of(vec![value("1")]);
        let token = token(&call.run, &call.items[0]);
        assert_eq!(token.len(), 64);
        assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let by = started_by(&RunId::new("x".repeat(200)), &call.items[0]);
        assert_eq!(by.len(), STARTED_BY_CHARS_MAX);
    }

    #[test]
    fn a_task_is_told_its_item_beside_the_variables_of_the_job() {
        let call = call_of(vec![value("1")]);
        let told = variables(&spec(), &call.run, &call.items[0], "1");
        assert_eq!(told["LOG_LEVEL"], "info");
        assert_eq!(told["TROMMEL_ITEM"], "3-17-0");
        assert_eq!(told["TROMMEL_IDEMPOTENCY_KEY"], "brave-heron-4f2a/3-17-0");
        assert_eq!(told[INPUT], "1");
    }

    #[test]
    fn overrides_are_measured_as_json_with_what_it_escapes() {
        let call = call_of(vec![value("1")]);
        let told = |input: &str| variables(&spec(), &call.run, &call.items[0], input);
        assert_eq!(check("work", &told(&"x".repeat(7_000))), Ok(()));
        let escaped = "\"".repeat(4_000);
        let refused = check("work", &told(&escaped)).expect_err("each takes two characters");
        assert_eq!(refused.class, Class::BadInput);
    }
}
