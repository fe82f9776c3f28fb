//! The guide "Test your handler against a bad day", as tests: a handler that counts twice when its answer is
//! lost, the same one mended, and a property over any number of orders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use trommel::core::class::Failure;
use trommel_simulator::{Builder, Ended, Simulation, Subject};

const JOB: &str = r#"
name = "invoices"
input = { jsonl = "orders.jsonl" }
max_concurrency = 4
tolerated_failure_percentage = 20

[[retry]]
errors = ["ALL"]
max_attempts = 2
interval = "1s"
"#;

/// The books of somebody's shop: what a database would hold.
#[derive(Default)]
struct Books {
    euros: u64,
    paid: BTreeMap<String, u64>,
}

fn orders(count: u64) -> Vec<Value> {
    (1..=count).map(|euros| json!({ "euros": euros })).collect()
}

/// What must hold: every order that succeeded is in the books once, and nothing else but what failed in doubt.
fn in_the_books_once(books: &Mutex<Books>, ended: &Ended) -> Result<(), String> {
    let ordered: u64 = ended.succeeded().map(|place| place as u64 + 1).sum();
    let may_be: u64 = (1..=ended.items.len() as u64).sum();
    let booked = books.lock().expect("nobody panics with it").euros;
    if (ordered..=may_be).contains(&booked) {
        return Ok(());
    }
    Err(format!(
        "{booked} euros are booked, {ordered} succeeded, {may_be} were ordered"
    ))
}

/// Adds the order's euros: twice, if it is called twice.
fn forgetful() -> Subject {
    let books = Arc::new(Mutex::new(Books::default()));
    let seen = books.clone();
    Subject::new(move |item, runtime| {
        let books = books.clone();
        async move {
            let order: Value = item.json()?;
            runtime.clock.sleep(Duration::from_millis(200)).await;
            let euros = order["euros"].as_u64().unwrap_or_default();
            books.lock().expect("nobody panics with it").euros += euros;
            Ok::<_, Failure>(json!({ "booked": euros }))
        }
    })
    .holds(move |ended| in_the_books_once(&seen, ended))
}

/// Books each order under its idempotency key: once, however often it is called.
fn mindful() -> Subject {
    let books = Arc::new(Mutex::new(Books::default()));
    let seen = books.clone();
    Subject::new(move |item, runtime| {
        let books = books.clone();
        async move {
            let order: Value = item.json()?;
            runtime.clock.sleep(Duration::from_millis(200)).await;
            let euros = order["euros"].as_u64().unwrap_or_default();
            let mut books = books.lock().expect("nobody panics with it");
            if books.paid.insert(item.idempotency_key(), euros).is_none() {
                books.euros += euros;
            }
            Ok::<_, Failure>(json!({ "booked": euros }))
        }
    })
    .holds(move |ended| in_the_books_once(&seen, ended))
}

fn day(orders_count: u64, subject: fn() -> Subject) -> Builder {
    Simulation::builder()
        .job(JOB)
        .lines(orders(orders_count))
        .subject(subject)
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the guide promises ten real seconds"
)]
fn a_handler_that_counts_twice_when_its_reply_is_lost_is_caught() {
    let begun = Instant::now();
    let verdict = day(20, forgetful).run();
    let bad_day = verdict.bad_day.expect("it counts twice on some day");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let report = bad_day.to_string();
    println!("{report}");
    assert_eq!(bad_day.violation.oracle, "yours");
    assert!(report.contains("euros are booked"), "{report}");
    assert!(bad_day.report.len() <= 12, "{report}");
    assert!(
        bad_day.scenario.size() <= 2,
        "one or two faults matter: {report}"
    );
}

#[test]
fn a_handler_that_heeds_its_idempotency_key_has_no_bad_day() {
    day(20, mindful).run().assert_holds();
}

#[test]
fn the_smallest_bad_day_fails_again_from_its_file_alone() {
    let bad_day = day(20, forgetful).run().bad_day.expect("it has one");
    let text = bad_day.scenario.to_json();
    let scenario = trommel_simulator::scenario::Scenario::parse(&text).expect("ours");
    let again = day(20, forgetful).try_scenario(&scenario);
    assert_eq!(again.map(|again| again.violation), Some(bad_day.violation));
}

#[test]
fn objects_of_two_sizes_go_through_both_lanes() {
    let job = r#"
name = "pictures"
input = { objects = "s3://pictures/" }
results = "s3://results/"

[function]
max_object = "1 KiB"

[container]
"#;
    let pictures = (0..12_u32).map(|number| {
        let bytes = if number % 3 == 0 { 4096 } else { 100 };
        (format!("{number:02}.png"), vec![0_u8; bytes])
    });
    let verdict = Simulation::builder()
        .job(job)
        .objects(pictures)
        .subject(|| Subject::new(|_, _| async { Ok::<_, Failure>(()) }))
        .seeds(0..100)
        .run();
    verdict.assert_holds();
}

#[test]
#[should_panic(expected = "max_concurency")]
fn a_wrong_job_file_is_told_as_the_command_line_would() {
    let wrong = JOB.replace("max_concurrency", "max_concurency");
    let verdict = Simulation::builder().job(wrong).seeds(0..1).run();
    verdict.assert_holds();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_number_of_orders_is_booked_once(count in 0..25_u64, seed: u64) {
        let builder = day(count, mindful);
        let bad_day = builder.try_scenario(&builder.scenario(seed));
        prop_assert!(bad_day.is_none(), "{}", bad_day.expect("there is one"));
    }
}
