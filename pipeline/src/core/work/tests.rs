//! The plan of a leased page: what each end of a call means, as examples and under random ends.

mod simulation;

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::core::id::{Generation, PageId, SessionId};
use crate::core::page::{PageEvent, PageStatus};
use crate::core::part::Stretch;
use crate::core::retry::{Errors, Jitter, THROTTLES_MAX};

const START: Timestamp = Timestamp(1_000_000);
const TICK: Tick = Tick(5_000_000_000);

fn leased_page(items: u32) -> Page {
    let stretch = Stretch { first: 0, items };
    let page = Page::new(
        PageId::new(0, 0),
        Lane::Function,
        vec![stretch],
        Generation(0),
    );
    let lease = PageEvent::Lease {
        session: SessionId::new("s"),
        now: START,
    };
    page.apply(&lease).expect("a new page is ready").0
}

fn retry(errors: Errors, max_attempts: u32, interval: Duration) -> RetryRule {
    RetryRule {
        errors,
        max_attempts,
        interval,
        backoff_rate: 1.0,
        max_delay: None,
        jitter: Jitter::None,
    }
}

fn rules(batch: usize) -> Rules {
    Rules {
        retry: Vec::new(),
        catch: Vec::new(),
        batch,
        lane: Lane::Function,
        escalation: Escalation::None,
    }
}

/// A page at work, with its rules and clocks that the test moves.
/// Whether every item has an outcome or has moved.
fn is_done(work: &Work) -> bool {
    work.items().iter().all(|item| item.mark != Mark::Pending)
}

struct Bench {
    work: Work,
    rules: Rules,
    passed: Duration,
    calls: Vec<Vec<u8>>,
}

impl Bench {
    fn new(items: u32, rules: Rules) -> Self {
        Self::of(leased_page(items), rules)
    }

    fn of(page: Page, rules: Rules) -> Self {
        Self {
            work: Work::new(page, &rules, START, TICK),
            rules,
            passed: Duration::ZERO,
            calls: Vec::new(),
        }
    }

    fn tick(&self) -> Tick {
        TICK + self.passed
    }

    fn call(&mut self) -> Unit {
        let unit = self.work.next_call().expect("a call may start");
        self.calls.push(unit.items.clone());
        unit
    }

    fn end(&mut self, unit: &Unit, stopped: Stopped, reports: Vec<ItemReport>) {
        let end = CallEnd {
            stopped,
            rules: &self.rules,
            now: START.after(self.passed),
            tick: TICK + self.passed,
            draw: &|| u64::MAX,
        };
        self.work
            .call_ended(unit, reports, end)
            .expect("no promise is broken");
    }

    /// The call ends, and nothing is known of any of its items but this.
    fn whole(&mut self, unit: &Unit, stopped: Stopped, class: &Class) {
        let report = ItemReport::Undecided(Failure::new(class.clone(), "as a whole"));
        self.end(unit, stopped, vec![report; unit.items.len()]);
    }

    fn one(&mut self, unit: &Unit, class: &Class) {
        let report = ItemReport::Failed(Failure::new(class.clone(), "of itself"));
        self.end(unit, Stopped::No, vec![report; unit.items.len()]);
    }

    fn well(&mut self, unit: &Unit) {
        let report = ItemReport::Succeeded(Output::None);
        self.end(unit, Stopped::No, vec![report; unit.items.len()]);
    }

    fn pass(&mut self, time: Duration) {
        self.passed += time;
        self.work.wake(TICK + self.passed, &self.rules);
    }

    /// Runs to the end; a call that carries one of `poison` fails as a whole.
    fn run(&mut self, poison: &[u8], class: &Class) {
        while !is_done(&self.work) {
            match self.work.next_due() {
                Some(due) if self.work.unstarted() == 0 => self.pass(due.since(self.tick())),
                Some(_) | None => {}
            }
            let unit = self.call();
            if unit.items.iter().any(|item| poison.contains(item)) {
                self.whole(&unit, Stopped::No, class);
            } else {
                self.well(&unit);
            }
        }
    }

    fn mark(&self, index: usize) -> Mark {
        self.work.items()[index].mark
    }

    fn count(&self, mark: Mark) -> usize {
        let items = self.work.items().iter();
        items.filter(|item| item.mark == mark).count()
    }
}

#[test]
fn one_crashing_item_of_a_hundred_is_found_by_halving() {
    for poison in [0, 1, 42, 50, 98, 99] {
        let mut bench = Bench::new(100, rules(100));
        bench.run(&[poison], &Class::Crashed);
        assert!(
            bench.calls.len() <= 16,
            "item {poison}: {} calls",
            bench.calls.len()
        );
        assert_eq!(bench.count(Mark::Done(Outcome::Succeeded)), 99);
        assert_eq!(bench.mark(usize::from(poison)), Mark::Done(Outcome::Failed));
        let (news, _) = bench.work.take_news(10);
        assert_eq!(news.settled, 100);
        assert_eq!(news.evidence.len(), 1);
        assert_eq!(news.evidence[0].index, poison);
        assert_eq!(
            news.evidence[0].attempts, 1,
            "a failed call of several is no attempt"
        );
    }
}

#[test]
fn halving_never_needs_more_than_two_calls_an_item_less_one() {
    for items in [1u32, 2, 3, 7, 64, 99, 100] {
        let mut bench = Bench::new(items, rules(100));
        let all: Vec<u8> = (0..items as u8).collect();
        bench.run(&all, &Class::Crashed);
        assert_eq!(bench.calls.len(), 2 * items as usize - 1);
        assert_eq!(bench.count(Mark::Done(Outcome::Failed)), items as usize);
    }
}

#[test]
fn only_causes_that_one_item_may_have_split_a_call() {
    let mut table = String::new();
    for class in crate::core::class::BUILT_IN
        .into_iter()
        .chain([Class::named("NotAnImage")])
    {
        let mut bench = Bench::new(4, rules(4));
        let unit = bench.call();
        bench.whole(&unit, Stopped::No, &class);
        let mut halves = Vec::new();
        while let Some(unit) = bench.work.next_call() {
            halves.push(unit.items);
        }
        let marks: String = bench
            .work
            .items()
            .iter()
            .map(|item| item.mark.letter())
            .collect();
        let due = bench.work.next_due().is_some();
        let later = if due { ", again later" } else { "" };
        let name = class.as_str();
        writeln!(table, "{name:<13} => {marks} calls {halves:?}{later}").expect("a text takes it");
    }
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("work_whole_failures", table);
    });
}

#[test]
fn what_a_failed_batch_did_say_stands_and_only_the_rest_is_called_again() {
    let mut bench = Bench::new(4, rules(4));
    let unit = bench.call();
    let crash = || ItemReport::Undecided(Failure::new(Class::Crashed, "signal 9"));
    let reports = vec![
        ItemReport::Succeeded(Output::Json("1".into())),
        crash(),
        ItemReport::Failed(Failure::new(Class::BadInput, "junk")),
        crash(),
    ];
    bench.end(&unit, Stopped::No, reports);
    assert_eq!(bench.mark(0), Mark::Done(Outcome::Succeeded));
    assert_eq!(bench.mark(2), Mark::Done(Outcome::Failed));
    assert_eq!(bench.call().items, [1]);
    assert_eq!(bench.call().items, [3]);
    let (news, _) = bench.work.take_news(10);
    assert_eq!(news.outputs, [(0, "1".into())]);
    assert_eq!(news.settled, 2);
}

#[test]
fn throttles_are_charged_to_infrastructure_and_never_split() {
    let all = retry(Errors::All, 1, Duration::ZERO);
    let mut bench = Bench::new(
        2,
        Rules {
            retry: vec![all],
            ..rules(2)
        },
    );
    for throttle in 1..=THROTTLES_MAX {
        let unit = bench.call();
        assert_eq!(unit.items, [0, 1], "never split");
        assert_eq!(bench.work.attempt(0), throttle);
        bench.whole(&unit, Stopped::No, &Class::Throttled);
        assert_eq!(bench.work.items()[0].throttles, throttle);
        assert_eq!(bench.work.items()[0].retries, [0]);
        bench.pass(Duration::from_secs(20));
    }
    let unit = bench.call();
    bench.whole(&unit, Stopped::No, &Class::Throttled);
    assert_eq!(bench.work.items()[0].retries, [1], "now like any class");
    bench.pass(Duration::ZERO);
    let unit = bench.call();
    bench.whole(&unit, Stopped::No, &Class::Throttled);
    assert_eq!(bench.count(Mark::Done(Outcome::Failed)), 2);
    let (news, _) = bench.work.take_news(10);
    assert_eq!(news.evidence[0].attempts, THROTTLES_MAX + 2);
}

#[test]
fn attempts_count_from_one_over_all_rules_and_end_with_the_evidence() {
    let first = retry(Errors::Any(vec![Class::Timeout]), 1, Duration::ZERO);
    let rest = retry(Errors::All, 2, Duration::ZERO);
    let mut bench = Bench::new(
        1,
        Rules {
            retry: vec![first, rest],
            ..rules(1)
        },
    );
    for (attempt, class) in [
        (1, Class::Timeout),
        (2, Class::Crashed),
        (3, Class::Crashed),
    ] {
        assert_eq!(bench.work.attempt(0), attempt);
        let unit = bench.call();
        bench.one(&unit, &class);
        bench.pass(Duration::ZERO);
    }
    assert_eq!(bench.work.items()[0].retries, [1, 2]);
    let unit = bench.call();
    bench.one(&unit, &Class::Timeout);
    assert_eq!(
        bench.mark(0),
        Mark::Done(Outcome::TimedOut),
        "the first rule that matches is used up; the second is not asked"
    );
    let (news, _) = bench.work.take_news(10);
    assert_eq!(news.evidence[0].attempts, 4);
}

#[test]
fn what_was_given_back_is_uncharged_and_called_again() {
    let mut bench = Bench::new(3, rules(3));
    let unit = bench.call();
    let gone = || ItemReport::Undecided(Failure::new(Class::Crashed, "stopped"));
    let reports = vec![gone(), ItemReport::Succeeded(Output::None), gone()];
    bench.end(&unit, Stopped::GivenBack, reports);
    assert_eq!(bench.work.in_calls(), 0);
    assert_eq!(bench.work.attempt(0), 1);
    assert_eq!(bench.work.unstarted(), 2);
    assert_eq!(bench.call().items, [0, 2]);
}

#[test]
fn what_was_stopped_with_the_run_is_aborted_unless_it_had_said_otherwise() {
    let mut bench = Bench::new(3, rules(3));
    let unit = bench.call();
    let gone = || ItemReport::Undecided(Failure::new(Class::Crashed, "stopped"));
    let reports = vec![gone(), ItemReport::Succeeded(Output::None), gone()];
    bench.end(&unit, Stopped::Aborted, reports);
    assert_eq!(bench.count(Mark::Done(Outcome::Aborted)), 2);
    assert_eq!(bench.mark(1), Mark::Done(Outcome::Succeeded));
    let (news, _) = bench.work.take_news(10);
    assert!(news.evidence.iter().all(|e| e.outcome == Outcome::Aborted));
    assert!(!Outcome::Aborted.is_failure());
}

#[test]
fn what_a_failure_becomes_depends_on_its_class_its_catch_and_the_container_lane() {
    let container = Rules {
        lane: Lane::Container,
        ..rules(1)
    };
    let catch = |then| {
        let errors = Errors::All;
        vec![CatchRule { errors, then }]
    };
    let mut table = String::new();
    for (place, base) in [
        ("function lane, container there", {
            Rules {
                escalation: Escalation::Possible,
                ..rules(1)
            }
        }),
        ("function lane alone", rules(1)),
        ("container lane", container),
    ] {
        for (caught, catch) in [
            ("no catch", Vec::new()),
            ("catch: container", catch(Then::Container)),
            ("catch: skip", catch(Then::Skip)),
            ("catch: fail", catch(Then::Fail)),
        ] {
            let letters = [Class::Timeout, Class::OutOfMemory, Class::Crashed].map(|class| {
                let rules = Rules {
                    catch: catch.clone(),
                    ..base.clone()
                };
                let mut bench = Bench::new(1, rules);
                let unit = bench.call();
                bench.one(&unit, &class);
                let moved = bench.count(Mark::Moved);
                let (news, items) = bench.work.take_news(10);
                assert_eq!(news.moved.len(), moved);
                assert_eq!(news.evidence.len(), 1 - moved, "what moved has not failed");
                format!("{class} {}", items[0].mark.letter())
            });
            let letters = letters.join(", ");
            writeln!(table, "{place:<30} {caught:<16} => {letters}").expect("a text takes it");
        }
    }
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("work_ends", table);
    });
}

#[test]
fn a_timeout_escalates_only_once_its_retries_are_used_up() {
    let mut bench = Bench::new(
        1,
        Rules {
            retry: vec![retry(Errors::All, 1, Duration::ZERO)],
            escalation: Escalation::Possible,
            ..rules(1)
        },
    );
    let unit = bench.call();
    bench.whole(&unit, Stopped::TimedOut, &Class::Timeout);
    assert_eq!(bench.mark(0), Mark::Pending);
    bench.pass(Duration::ZERO);
    let unit = bench.call();
    bench.whole(&unit, Stopped::TimedOut, &Class::Timeout);
    assert_eq!(bench.mark(0), Mark::Moved);
}

#[test]
fn a_batch_that_ran_out_of_time_is_halved_before_anything_escalates() {
    let mut bench = Bench::new(
        4,
        Rules {
            escalation: Escalation::Possible,
            ..rules(4)
        },
    );
    bench.run(&[2], &Class::Timeout);
    assert_eq!(bench.calls.len(), 5);
    assert_eq!(bench.count(Mark::Done(Outcome::Succeeded)), 3);
    assert_eq!(bench.mark(2), Mark::Moved);
}

#[test]
fn escalations_beyond_the_bound_of_a_transaction_stay_news() {
    let mut bench = Bench::new(
        5,
        Rules {
            escalation: Escalation::Possible,
            ..rules(1)
        },
    );
    for _ in 0..5 {
        let unit = bench.call();
        bench.one(&unit, &Class::OutOfMemory);
    }
    let mut recorded = Vec::new();
    for left in [3, 1, 0] {
        assert!(bench.work.has_news());
        let (news, items) = bench.work.take_news(2);
        recorded.extend(news.moved);
        let pending = items.iter().filter(|item| item.mark == Mark::Pending);
        assert_eq!(pending.count(), left, "what is not yet news is not moved");
    }
    assert_eq!(recorded, [0, 1, 2, 3, 4]);
    assert!(!bench.work.has_news());
    assert!(is_done(&bench.work));
}

#[test]
fn a_page_with_only_far_retries_is_idle_and_one_with_a_near_retry_is_not() {
    for (wait, idle) in [
        (HELD_WAIT_MAX, false),
        (HELD_WAIT_MAX + Duration::from_millis(1), true),
        (Duration::from_hours(1), true),
    ] {
        let mut bench = Bench::new(
            1,
            Rules {
                retry: vec![retry(Errors::All, 1, wait)],
                ..rules(1)
            },
        );
        assert!(!bench.work.is_idle(bench.tick()), "a call may start");
        let unit = bench.call();
        assert!(!bench.work.is_idle(bench.tick()), "a call runs");
        bench.one(&unit, &Class::Crashed);
        assert_eq!(bench.work.is_idle(bench.tick()), idle, "{wait:?}");
        assert_eq!(bench.work.next_due(), Some(TICK + wait));
        assert_eq!(bench.work.items()[0].due, Some(START.after(wait)));
        let moment = Duration::from_nanos(1);
        bench.pass(wait.saturating_sub(moment));
        assert_eq!(bench.work.next_call(), None, "not a moment early");
        bench.pass(moment);
        assert_eq!(bench.work.next_due(), None);
        assert_eq!(bench.call().items, [0]);
    }
}

#[test]
fn news_keeps_a_page_from_being_idle() {
    let mut bench = Bench::new(1, rules(1));
    let unit = bench.call();
    bench.well(&unit);
    assert!(is_done(&bench.work));
    assert!(!bench.work.is_idle(bench.tick()));
    bench.work.take_news(1);
    assert!(bench.work.is_idle(bench.tick()));
}

#[test]
fn a_leased_page_calls_what_is_due_and_waits_for_the_rest() {
    let mut page = leased_page(4);
    page.items[0].due = Some(START);
    page.items[1].due = Some(START.after(Duration::from_secs(2)));
    page.items[2].mark = Mark::Done(Outcome::Skipped);
    let mut bench = Bench::of(page, rules(100));
    assert_eq!(bench.call().items, [0, 3]);
    assert_eq!(bench.work.next_call(), None);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.call().items, [1]);
    assert_eq!(bench.work.next_due(), None);
}

#[test]
fn a_suspect_page_calls_one_item_at_a_time() {
    let mut page = leased_page(3);
    page.deaths = crate::core::page::DEATHS_TO_SUSPECT;
    let mut bench = Bench::of(page, rules(100));
    for index in 0..3 {
        assert_eq!(bench.call().items, [index]);
    }
}

#[test]
fn reports_that_do_not_fit_their_call_are_a_violation() {
    let mut bench = Bench::new(2, rules(2));
    let unit = bench.call();
    let end = || CallEnd {
        stopped: Stopped::No,
        rules: &bench.rules,
        now: START,
        tick: TICK,
        draw: &|| 0,
    };
    let short = vec![ItemReport::Succeeded(Output::None)];
    let violation = bench
        .work
        .call_ended(&unit, short, end())
        .expect_err("one report for two items");
    assert_eq!(violation.id, InvariantId::S3);
    let both = vec![ItemReport::Succeeded(Output::None); 2];
    bench
        .work
        .call_ended(&unit, both, end())
        .expect("two reports for two items");
}

#[test]
fn an_item_that_has_an_outcome_gets_no_second_one() {
    let mut bench = Bench::new(1, rules(1));
    let unit = bench.call();
    bench.well(&unit);
    bench.work.in_calls = 1;
    let end = CallEnd {
        stopped: Stopped::No,
        rules: &bench.rules,
        now: START,
        tick: TICK,
        draw: &|| 0,
    };
    let again = vec![ItemReport::Succeeded(Output::None)];
    let violation = bench
        .work
        .call_ended(&unit, again, end)
        .expect_err("it has succeeded");
    assert_eq!(violation.id, InvariantId::S1);
}
