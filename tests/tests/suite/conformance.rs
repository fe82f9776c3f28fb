//! Model and emulator under the same calls: what a service did must be in the set that the simulator's rules
//! allow. Here stand the grounds that are played on, how many cases, and what is known to differ.
//!
//! `TROMMEL_CONFORMANCE_CASES` says how many cases each kind of call gets; 256 is full scale.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Runtime;
use trommel_localstack::{Emulator, Kind};
use trommel_simulator::rules::Liberty;

use crate::emulator_arms::emulator;

/// So many cases where nobody says otherwise: a minute or two.
const CASES_DEFAULT: u32 = 32;

/// Calls of one case, at most.
const STEPS_MAX: usize = 20;

/// Tries to make a failing case smaller: each takes as long as a case.
const SHRINKS_MAX: u32 = 100;

/// How many cases are asked for.
pub(crate) fn cases() -> u32 {
    let asked = std::env::var("TROMMEL_CONFORMANCE_CASES").ok();
    asked.map_or(CASES_DEFAULT, |text| {
        let count = text.parse();
        count.expect("TROMMEL_CONFORMANCE_CASES is a number of cases")
    })
}

/// The runtime that all connections to emulators belong to.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        runtime.expect("a runtime")
    })
}

/// The emulator, found by the first case.
pub(crate) fn stage(what: &str) -> Option<&'static Emulator> {
    runtime().block_on(emulator(what))
}

/// Runs `cases` of them; the first that breaks a rule is made small, and fails.
pub(crate) fn play<T: StateMachineTest>(cases: u32)
where
    <T::Reference as ReferenceStateMachine>::State: 'static,
{
    let config = Config {
        cases,
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config.clone());
    let strategy = T::Reference::sequential_strategy(1..=STEPS_MAX);
    let done = runner.run(&strategy, |(start, steps, seen)| {
        T::test_sequential(config.clone(), start, steps, seen);
        Ok::<(), TestCaseError>(())
    });
    match done {
        Ok(()) => {}
        Err(TestError::Fail(reason, (_, steps, _))) => panic!("{reason}\nafter {steps:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// What is known to differ between the rules and an emulator, and why that is borne.
pub(crate) struct Waiver {
    /// Where.
    pub(crate) kind: Kind,
    /// What it does beyond the rules.
    pub(crate) liberty: Liberty,
    /// Why it is borne.
    pub(crate) reason: &'static str,
}

/// Liberties that somebody took, over all cases.
#[derive(Default)]
pub(crate) struct Taken(Mutex<BTreeMap<Liberty, u64>>);

impl Taken {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Adds those of one case.
    pub(crate) fn add(&self, taken: &BTreeMap<Liberty, u64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (liberty, times) in taken {
            *all.entry(*liberty).or_default() += times;
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<Liberty, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Says it past the test harness, which keeps the words of a test that passes to itself.
pub(crate) fn say(text: &str) {
    let line = format!("conformance: {text}\n");
    let said = io::stderr().write_all(line.as_bytes());
    said.expect("the words must not get lost");
}
