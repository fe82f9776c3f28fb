//! A page worked on to its end by workers that die, drain and release, whose calls end at random. It
//! always settles, each item's outcome is recorded once, and no rule is charged more than it grants.

use proptest::prelude::*;

use super::*;

/// A page that needs more than this many steps will never settle: items × (retries + throttles + halving),
/// with room for calls that were given back and workers that died.
const STEPS_MAX: u32 = 50_000;

/// A draw from the test's own stream, so that a case shrinks and repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn class(&mut self) -> Class {
        let classes = [
            Class::Crashed,
            Class::Timeout,
            Class::OutOfMemory,
            Class::Throttled,
            Class::Unavailable,
            Class::named("NotAnImage"),
        ];
        classes[self.roll(6) as usize].clone()
    }

    fn report(&mut self) -> ItemReport {
        match self.roll(4) {
            0 | 1 => ItemReport::Succeeded(Output::None),
            2 => ItemReport::Failed(Failure::new(self.class(), "of itself")),
            _ => ItemReport::Undecided(Failure::new(self.class(), "unsaid")),
        }
    }

    fn reports(&mut self, items: usize) -> Vec<ItemReport> {
        if self.roll(3) == 0 {
            let whole = ItemReport::Undecided(Failure::new(self.class(), "as a whole"));
            return vec![whole; items];
        }
        (0..items).map(|_| self.report()).collect()
    }

    fn stopped(&mut self) -> Stopped {
        match self.roll(12) {
            0 => Stopped::GivenBack,
            1 => Stopped::TimedOut,
            2 => Stopped::Aborted,
            _ => Stopped::No,
        }
    }
}

fn rules(batch: usize, attempts: (u32, u32), escalation: Escalation, wait: Duration) -> Rules {
    Rules {
        retry: vec![
            retry(
                Errors::Any(vec![Class::Timeout, Class::Unavailable]),
                attempts.0,
                wait,
            ),
            retry(Errors::All, attempts.1, Duration::from_millis(1)),
        ],
        catch: vec![CatchRule {
            errors: Errors::Any(vec![Class::named("NotAnImage")]),
            then: Then::Skip,
        }],
        batch,
        lane: Lane::Function,
        escalation,
    }
}

/// The page's row, and who works on it.
struct World {
    dice: Dice,
    rules: Rules,
    page: Page,
    passed: Duration,
    /// Outcomes and moves recorded, by item.
    recorded: Vec<u32>,
    steps: u32,
}

impl World {
    fn now(&self) -> Timestamp {
        START.after(self.passed)
    }

    fn tick(&self) -> Tick {
        TICK + self.passed
    }

    fn change(&mut self, event: &PageEvent) {
        let (page, _) = self.page.apply(event).expect("the page is this session's");
        for (index, (old, new)) in self.page.items.iter().zip(&page.items).enumerate() {
            if old.mark != new.mark {
                self.recorded[index] += 1;
            }
        }
        self.page = page;
    }

    /// One session's hold of the page: until it is settled, released, or the session dies.
    fn hold(&mut self) -> Result<(), TestCaseError> {
        if let PageStatus::Waiting { due } = self.page.status {
            self.passed += due.since(self.now());
        }
        let session = SessionId::new("s");
        let lease = PageEvent::Lease {
            session: session.clone(),
            now: self.now(),
        };
        self.change(&lease);
        let mut work = Work::new(self.page.clone(), &self.rules, self.now(), self.tick());
        let mut running: Vec<Unit> = Vec::new();
        loop {
            self.steps += 1;
            prop_assert!(self.steps < STEPS_MAX, "it does not end: {:?}", self.page);
            if self.dice.roll(60) == 0 {
                self.change(&PageEvent::HolderDied { session });
                return Ok(());
            }
            self.step(&mut work, &mut running)?;
            let in_calls: usize = running.iter().map(|unit| unit.items.len()).sum();
            prop_assert_eq!(work.in_calls(), in_calls);
            if work.has_news() && self.dice.roll(3) == 0 {
                self.record(&session, &mut work);
            }
            if self.page.status == PageStatus::Settled {
                return Ok(());
            }
            if work.is_idle(self.tick()) {
                self.keep(&session, work.items().to_vec());
                let (epoch, now) = (self.page.epoch, self.now());
                self.change(&PageEvent::Release {
                    session,
                    epoch,
                    now,
                });
                return Ok(());
            }
        }
    }

    fn step(&mut self, work: &mut Work, running: &mut Vec<Unit>) -> Result<(), TestCaseError> {
        if running.is_empty()
            && work.unstarted() == 0
            && let Some(due) = work.next_due()
        {
            self.passed += due.since(self.tick());
        }
        work.wake(self.tick(), &self.rules);
        if self.dice.roll(2) == 0 {
            running.extend(work.next_call());
            return Ok(());
        }
        if running.is_empty() {
            return Ok(());
        }
        let unit = running.swap_remove(self.dice.roll(running.len() as u64) as usize);
        let (reports, stopped) = (self.dice.reports(unit.items.len()), self.dice.stopped());
        let draw = self.dice.roll(1 << 31) << 33;
        let end = CallEnd {
            stopped,
            rules: &self.rules,
            now: self.now(),
            tick: self.tick(),
            draw: &|| draw,
        };
        if let Err(violation) = work.call_ended(&unit, reports, end) {
            return Err(TestCaseError::fail(violation.to_string()));
        }
        for item in work.items() {
            for (charged, rule) in item.retries.iter().zip(&self.rules.retry) {
                prop_assert!(*charged <= rule.max_attempts, "S11: {item:?}");
            }
            prop_assert!(item.throttles <= THROTTLES_MAX, "{item:?}");
        }
        Ok(())
    }

    fn record(&mut self, session: &SessionId, work: &mut Work) {
        let moves_max = 1 + self.dice.roll(3) as usize;
        let (news, items) = work.take_news(moves_max);
        assert!(news.moved.len() <= moves_max);
        self.keep(session, items);
    }

    fn keep(&mut self, session: &SessionId, items: Vec<ItemState>) {
        let event = PageEvent::Record {
            session: session.clone(),
            epoch: self.page.epoch,
            items,
            outputs: None,
        };
        self.change(&event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_page_always_settles_with_each_outcome_recorded_once(
        seed in any::<u64>(),
        items in 1u32..=100,
        batch in 1usize..=100,
        attempts in (0u32..4, 0u32..4),
        escalation in prop_oneof![Just(Escalation::Possible), Just(Escalation::None)],
        wait in prop_oneof![Just(1u64), Just(29_000), Just(31_000), Just(3_600_000)],
    ) {
        let stretch = Stretch { first: 0, items };
        let page = Page::new(PageId::new(0, 0), Lane::Function, vec![stretch], Generation(0));
        let mut world = World {
            dice: Dice(seed),
            rules: rules(batch, attempts, escalation, Duration::from_millis(wait)),
            page,
            passed: Duration::ZERO,
            recorded: vec![0; items as usize],
            steps: 0,
        };
        while world.page.status != PageStatus::Settled {
            world.hold()?;
        }
        prop_assert!(world.recorded.iter().all(|times| *times == 1), "S1: {:?}", world.recorded);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_poison_is_found_within_two_calls_an_item(
        items in 1u32..=100,
        batch in 1usize..=100,
        poison in proptest::collection::btree_set(0u8..100, 0..20),
    ) {
        let poison: Vec<u8> = poison.into_iter().filter(|i| u32::from(*i) < items).collect();
        let mut bench = Bench::new(items, super::rules(batch));
        bench.run(&poison, &Class::Crashed);
        let batches = (items as usize).div_ceil(batch);
        prop_assert!(bench.calls.len() <= 2 * items as usize - batches);
        prop_assert_eq!(bench.count(Mark::Done(Outcome::Failed)), poison.len());
        let well = items as usize - poison.len();
        prop_assert_eq!(bench.count(Mark::Done(Outcome::Succeeded)), well);
    }
}
