//! This machine's clock, against what an answer says. Leases need no common clock, but signatures do, and people
//! who compare logs.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef as Answer;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;

use super::{Check, refused};
use crate::adapters::aws::classify::Fault;
use crate::adapters::aws::config::Clients;
use crate::core::time::Timestamp;
use crate::ports::Clock;

/// AWS refuses requests that are 5 minutes off ("RequestTimeTooSkewed"); a header has whole seconds, and an answer
/// takes its time. Beyond this somebody should look.
const SKEW_MAX_SECONDS: i64 = 60;

const WHAT: &str = "clock";

/// Asks for as little as possible, and reads the answer's date.
pub(super) async fn examine(clients: &Clients, wall: &dyn Clock) -> Check {
    let date = Date::default();
    let ask = clients.dynamodb.list_tables().limit(1).customize();
    let answer = ask.interceptor(date.clone()).send().await;
    let now = wall.now();
    let told = date.told();
    match (told.as_deref().map(parsed), answer) {
        // A refusal has a date as well.
        (Some(Some(there)), _) => compared(now, there),
        (Some(None) | None, Ok(_)) => Check::warn(
            WHAT,
            "the endpoint's answers have no date",
            "see that this machine's clock is set by the network",
        ),
        (Some(None) | None, Err(error)) => refused(WHAT, &Fault::of(&error)),
    }
}

fn compared(here: Timestamp, there: Timestamp) -> Check {
    let off = (here.0 - there.0) / 1000;
    if off.abs() <= SKEW_MAX_SECONDS {
        return Check::ok(WHAT, format!("{off} s off the service's"));
    }
    let found = format!("{off} s off the service's, more than {SKEW_MAX_SECONDS}");
    let help =
        "set this machine's clock by the network (NTP); from 5 minutes on AWS refuses requests";
    Check::fail(WHAT, found, help)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parsed(date: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

/// Keeps the date of an answer.
#[derive(Clone, Debug, Default)]
struct Date(Arc<Mutex<Option<String>>>);

impl Date {
    fn told(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Intercept for Date {
    fn name(&self) -> &'static str {
        "date of an answer"
    }

    fn read_before_deserialization(
        &self,
        answer: &Answer<'_>,
        _parts: &RuntimeComponents,
        _settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = answer.response().headers().get("date");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(str::to_owned);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn a_date_of_http_is_read_and_a_minute_is_allowed() {
        let there = parsed("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        assert_eq!(there, Timestamp(784_111_777_000));
        let health = |seconds: i64| compared(Timestamp(there.0 + seconds * 1000), there).health;
        assert_eq!(health(60), Health::Ok);
        assert_eq!(health(-60), Health::Ok);
        assert_eq!(health(61), Health::Fail);
        assert_eq!(parsed("yesterday"), None);
    }
}
