//! What Trommel foretells of cost and patience, beside what happens on a calm day.

use std::time::Duration;

use trommel::core::bill::{Bill, Service};
use trommel::core::estimate::{Estimate, Source, Workload as Work};
use trommel::core::price::{Prices, Usage};
use trommel_simulator::events::EventMode;
use trommel_simulator::run::{Outcome, Text, run};
use trommel_simulator::scenario::{Profile, Scenario, Tuning, Workload};

fn calm_day(small: u64, large: u64) -> Scenario {
    let mut scenario = Scenario::generate(1, Profile::None);
    scenario.workers = 1;
    scenario.workload = Workload {
        small,
        large,
        lines: false,
        line_bytes: 0,
        listed_at_once: 0,
    };
    scenario.tuning = Tuning {
        max_concurrency: 64,
        batch: 1,
        tolerated: 100,
        tolerated_percent: None,
        retries: 0,
        interval_ms: 500,
        pauses: false,
        results: true,
        appends: false,
        session_seconds: 30,
    };
    scenario.handler = trommel_simulator::cluster::Behaviour::calm(
        Duration::from_millis(20),
        Duration::from_millis(40),
    );
    scenario.redrives = 0;
    scenario.events = None;
    scenario.rules = trommel_simulator::job_rules::Rules::default();
    scenario
}

fn finished(scenario: &Scenario) -> Outcome {
    let outcome = run(scenario, Text::Hashed);
    assert_eq!(outcome.violation, None);
    outcome
}

/// What is billed by items, beside what is billed for waiting: heartbeats, looks, sweeps.
fn billed_more(less: &Outcome, more: &Outcome) -> Usage {
    let difference = |of: fn(&Usage) -> u64| of(&more.usage).saturating_sub(of(&less.usage));
    Usage {
        dynamodb_requests: difference(|usage| usage.dynamodb_requests),
        write_units: difference(|usage| usage.write_units),
        read_half_units: difference(|usage| usage.read_half_units),
        sqs_requests: difference(|usage| usage.sqs_requests),
        s3_puts: difference(|usage| usage.s3_puts),
        s3_gets: difference(|usage| usage.s3_gets),
    }
}

/// Within a third: what it leaves out, as it says, goes by time.
fn assert_near(what: &str, foretold: u64, billed: u64) {
    let near = 10 * foretold <= 13 * billed && 10 * billed <= 13 * foretold;
    assert!(near, "{what}: {foretold} foretold, {billed} billed");
}

#[test]
fn what_a_listing_costs_is_near_to_what_was_foretold() {
    let (less, more) = (finished(&calm_day(10, 2)), finished(&calm_day(410, 202)));
    let foretold = Estimate::of(&Work {
        source: Source::Listing,
        fines: 400,
        fine_bytes: 4_000,
        lumps: 200,
        results: true,
    });
    let (billed, pipeline) = (billed_more(&less, &more), foretold.pipeline());
    assert_near("write units", pipeline.write_units, billed.write_units);
    assert_near(
        "halves of read units",
        pipeline.read_half_units,
        billed.read_half_units,
    );
    assert_near(
        "requests to SQS",
        pipeline.sqs_requests,
        billed.sqs_requests,
    );
    let gets = pipeline.s3_gets + foretold.objects_read.s3_gets;
    assert_near("gets", gets, billed.s3_gets);
}

#[test]
fn what_events_cost_is_near_to_what_was_foretold() {
    let day = |small, large| {
        let mut scenario = calm_day(small, large);
        scenario.tuning.results = false;
        scenario.events = Some(EventMode {
            window_seconds: 60,
            sequencers: true,
            // All are there at once, as the estimate has it.
            spread_ms: 1,
            overwrites: 0,
            removals: 0,
            others: 0,
            junk: 0,
            doubled: 0,
            late: 0,
            pending_max: 100_000,
            lost: 0,
            reconciles: 0,
            versions: false,
        });
        finished(&scenario)
    };
    let (less, more) = (day(20, 6), day(420, 126));
    let foretold = Estimate::of(&Work {
        source: Source::Events(trommel::core::job::Dedupe::On),
        fines: 400,
        fine_bytes: 4_000,
        lumps: 120,
        results: false,
    });
    let (billed, pipeline) = (billed_more(&less, &more), foretold.pipeline());
    assert_near("write units", pipeline.write_units, billed.write_units);
}

#[test]
fn ten_times_the_work_costs_ten_times_as_much_and_no_service_is_left_out() {
    let sources = [
        Source::Numbers,
        Source::Inline,
        Source::File,
        Source::Listing,
    ];
    for source in sources {
        // Whole parts, pages, groups and batches, so that nothing is rounded.
        let foretold = |times: u64| {
            Estimate::of(&Work {
                source,
                fines: times * 1_000_000,
                fine_bytes: times * 1_000_000,
                lumps: 0,
                results: true,
            })
        };
        let (one, ten) = (foretold(1).ledger, foretold(10).ledger);
        for of in [
            |usage: &Usage| usage.write_units,
            |usage: &Usage| usage.read_half_units,
        ] {
            assert_eq!(of(&ten), 10 * of(&one), "{source:?}");
        }
        let prices = &Prices::LIST;
        let apart: f64 = foretold(1).usd_by_service(prices).iter().sum();
        let together = foretold(1).pipeline().usd(prices);
        assert!(
            (apart - together).abs() < 1e-9,
            "{source:?}: {apart} and {together}"
        );
    }
}

#[test]
fn a_bill_says_what_its_usage_costs_and_names_its_services() {
    let usage = finished(&calm_day(5, 1)).usage;
    let mut bill = Bill {
        usage,
        ..Bill::default()
    };
    for (service, times) in Service::ALL.into_iter().zip([3, 5, 7]) {
        let operations = bill.calls.entry(service).or_default();
        operations.insert("GetItem".to_owned(), times);
        assert_eq!(bill.calls_of(service), times);
    }
    assert_eq!(bill.requests(), 15);
    assert!(bill.usd(&Prices::LIST) > 0.0);
    assert!((bill.usd(&Prices::LIST) - usage.usd(&Prices::LIST)).abs() < f64::EPSILON);
    let names = Service::ALL.map(Service::as_str);
    assert_eq!(names, ["dynamodb", "sqs", "s3"]);
}

#[test]
fn what_is_always_throttled_is_asked_again_ever_more_seldom() {
    let mut scenario = calm_day(1, 0);
    scenario.tuning.results = false;
    scenario.handler.throttled = 1_000_000;
    let outcome = finished(&scenario);
    let seconds = outcome.virtual_time.as_secs();
    // Twenty waits that double from 100 ms to 20 s, each half as long on average.
    assert!((60..300).contains(&seconds), "{seconds} s");
}
