//! Carries out a scenario: chaos first, then everything is healed and the run must come to its end.

mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use trommel::core::price::Usage;
use trommel::core::redrive::Selection;
use trommel::core::run::{RunEvent, RunStatus, Wish};
use trommel::core::time::Tick;
use trommel::ledger::Redrive;
use trommel::ports::table::TableProfile;

use crate::budget::Budget;
use crate::charges::Policy;
use crate::cluster::{Behaviour, Cluster, Process};
use crate::evidence::Evidence;
use crate::halt::{Halt, Limits};
use crate::node::{Node, Skew};
use crate::oracle::{Compared, Oracle, Violation};
use crate::own::{Data, EndedItem, Own};
use crate::point::{Kind, Operation, Point};
use crate::probe::{Probe, Probes};
use crate::scenario::{self, Happening, LINES_KEY, Role, Scenario, Trouble, Workload, worker};
use crate::services::{Ground, Source};
use crate::simulation::Simulation;

/// What DynamoDB allows, and how long a session there gathers outcomes.
pub const SHARED: TableProfile = TableProfile {
    transact_writes_max: 100,
    row_bytes_max: 400 * 1024,
    settle_within: Duration::from_secs(1),
};

/// Between two looks at the world.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A run ends so long after it was healed: sessions die within two durations, lost hints and late requests
/// come within 90 s more, then all items may run one after the other.
const CALM_MAX: Duration = Duration::from_mins(40);

/// The same on a ground in real time, where each second is waited for: so many durations of a session …
const CALM_SESSIONS_AWAY: u32 = 12;

/// … and what a finalizer waits for those who may still settle.
const CALM_MORE_AWAY: Duration = Duration::from_mins(2);

/// A run is resumed so often; one that pauses by breach again and again is left PAUSED.
const RESUMES_MAX: u32 = 3;

/// Polls of tasks after which a scenario counts as stuck: a busy one has some ten thousand.
const STEPS_MAX: u64 = 3_000_000;

/// Whether the trace's text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// For reading.
    Kept,
    /// Only its hash.
    Hashed,
}

/// How a scenario went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// The oracles that said so, of this one and all that followed.
    pub spoke: BTreeSet<String>,
    /// The faults that struck.
    pub fired: Vec<(Point, Kind)>,
    /// Where the run stood at the end.
    pub status: Option<RunStatus>,
    /// Service calls.
    pub calls: BTreeMap<Operation, u64>,
    /// Polls of tasks.
    pub steps: u64,
    /// How much each oracle compared.
    pub compared: Compared,
    /// The hash of the whole trace.
    pub trace_hash: u64,
    /// Its text, if kept.
    pub trace: String,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// What the services billed.
    pub usage: Usage,
    /// Sessions that were opened.
    pub sessions: u64,
    /// What happened that must happen sometimes.
    pub probes: Probes,
    /// What became of each item, in the order of the data; only where the text is kept.
    pub items: Vec<EndedItem>,
}

/// Carries out a scenario.
pub fn run(scenario: &Scenario, text: Text) -> Outcome {
    run_with(scenario, text, None)
}

/// A scenario and what else it follows from.
pub(crate) struct Play<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) text: Text,
    /// The caller of the so many-th service call dies before or after it.
    pub(crate) crash_at: Option<(u64, Kind)>,
    /// What a user brings instead of the simulated job, data and handler.
    pub(crate) own: Option<Own>,
    /// Where the services are, if they are not simulated.
    pub(crate) ground: Option<Ground>,
}

/// The same; the caller of the so many-th service call dies before or after it.
pub fn run_with(scenario: &Scenario, text: Text, crash_at: Option<(u64, Kind)>) -> Outcome {
    Play {
        scenario,
        text,
        crash_at,
        own: None,
        ground: None,
    }
    .run()
}

impl Play<'_> {
    fn cluster(&self, sim: &Simulation) -> Cluster {
        let writes_max = self.scenario.rules.writes_max;
        let table = TableProfile {
            transact_writes_max: writes_max.unwrap_or(SHARED.transact_writes_max),
            ..SHARED
        };
        let profile = (self.scenario.tuning.settings(), table);
        match self.own.clone() {
            None => {
                let simulated = |cluster: &Cluster, node: &Node| cluster.handler(node);
                let ground = self.ground.clone();
                Cluster::on(
                    sim,
                    self.scenario.job(),
                    profile,
                    Arc::new(simulated),
                    ground,
                )
            }
            Some(own) => {
                let job = own.job.clone();
                let executors = move |_: &Cluster, node: &Node| own.executor(node);
                Cluster::with_executors(sim, job, profile, Arc::new(executors))
            }
        }
    }

    fn is_small(&self) -> Vec<bool> {
        let Workload {
            small,
            large,
            lines,
            ..
        } = self.scenario.workload;
        match &self.own {
            Some(own) => own.is_small(),
            None => (0..small + large)
                // What no lane takes lies among the small ones, and is not called.
                .map(|number| lines || number < small || self.scenario.rules.refuses_large())
                .collect(),
        }
    }

    pub(crate) fn run(self) -> Outcome {
        let Self {
            scenario,
            text,
            crash_at,
            ..
        } = self;
        let limits = Limits {
            steps_max: STEPS_MAX,
            ..Limits::default()
        };
        let sim = match &self.ground {
            Some(ground) => Simulation::in_step(scenario.seed, limits, ground.speed),
            None => Simulation::with_limits(scenario.seed, limits),
        };
        if text == Text::Hashed {
            sim.forget_text();
        }
        let cluster = self.cluster(&sim);
        let session = scenario.tuning.settings().session_duration;
        cluster.injector().set_session(session);
        if !scenario.tuning.appends {
            cluster.scratch_is_like_s3();
        }
        let listed_at_once = scenario.workload.listed_at_once;
        cluster.injector().set_listed_at_once(listed_at_once);
        let rows_at_once = scenario.rules.rows_at_once;
        cluster
            .injector()
            .set_rows_at_once(rows_at_once.unwrap_or(u32::MAX));
        let mut stage = Stage {
            scenario,
            own: self.own.as_ref(),
            ground: self.ground.as_ref(),
            sim: &sim,
            cluster: &cluster,
            resumed: 0,
            leaving: BTreeSet::new(),
            calm_max: match self.ground {
                Some(_) => session * CALM_SESSIONS_AWAY + CALM_MORE_AWAY,
                None => CALM_MAX + session * deaths_max(scenario),
            },
        };
        let mut oracle = Oracle::new(&sim, &cluster, self.is_small());
        if self.own.is_some() {
            oracle.data_is_not_known();
        } else {
            oracle.tolerates(Budget::of(scenario));
            if scenario.changes_input() {
                oracle.places_are_not_known();
            }
        }
        let halted = stage.play(&mut oracle, crash_at).err();
        oracle.at_any_time();
        let serves = scenario.events.is_some();
        // What a service elsewhere bills is not seen here.
        if self.ground.is_none() && !serves {
            oracle.busy_loops(scenario.workers, sim.now().since(Tick::default()));
        }
        // Each of them may end a session, or make an outcome's writing fail for long.
        let losses = cluster.injector().struck() + scenario.troubles.len();
        if self.own.is_none() && !serves {
            let granted = Policy::of(scenario, losses).granted("Flaky");
            oracle.retries(granted, losses as u64);
        }
        let status = stage.status().ok();
        if let (Some(own), Some(status), None) = (&self.own, status, &halted) {
            oracle.holds_for_its_owner(own, status);
        }
        let (mut found, compared) = oracle.finish();
        if let Some(halt) = halted {
            found.push(Violation::new("L2", halt.to_string()));
        }
        if let Some(violation) = found.first() {
            let Violation { oracle, seen } = violation;
            sim.trace(&format_args!("BROKEN {oracle}: {seen}"));
        }
        let (trace_hash, trace) = (sim.trace_hash(), sim.trace_text());
        // A look more at the ledger: nothing of it is in the trace.
        let items = match text {
            Text::Kept => {
                let small = self.is_small();
                let count = small.len();
                Oracle::new(&sim, &cluster, small).ended(count)
            }
            Text::Hashed => Vec::new(),
        };
        cluster.dismantle();
        let injector = cluster.injector();
        Outcome {
            spoke: found.iter().map(|one| one.oracle.clone()).collect(),
            violation: found.into_iter().next(),
            fired: injector.fired(),
            status,
            calls: injector.calls_by_operation(),
            steps: sim.steps(),
            compared,
            trace_hash,
            trace,
            virtual_time: sim.now().since(Tick::default()),
            usage: injector.usage(),
            sessions: cluster.sessions_opened(),
            probes: sim.probes(),
            items,
        }
    }
}

/// Sessions that items end: each killer ends two before it fails, and there may be twice as many as chance has it.
fn deaths_max(scenario: &Scenario) -> u32 {
    let Workload { small, large, .. } = scenario.workload;
    let killers = (small + large) * u64::from(scenario.handler.killers) / 1_000_000;
    u32::try_from(4 * killers).unwrap_or(u32::MAX)
}

/// What a redrive meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Calm,
    Stormy,
}

struct Stage<'a> {
    scenario: &'a Scenario,
    own: Option<&'a Own>,
    ground: Option<&'a Ground>,
    sim: &'a Simulation,
    cluster: &'a Cluster,
    resumed: u32,
    /// Processes that are to be started again once they have left.
    leaving: BTreeSet<String>,
    /// All must have ended so long after it was healed.
    calm_max: Duration,
}

impl<'a> Stage<'a> {
    fn evidence(&self) -> Evidence<'a> {
        Evidence {
            scenario: self.scenario,
            sim: self.sim,
            cluster: self.cluster,
        }
    }
}

impl Stage<'_> {
    fn play(&mut self, oracle: &mut Oracle<'_>, crash_at: Option<(u64, Kind)>) -> Result<(), Halt> {
        if let Some(mode) = self.scenario.events {
            return self.play_events(oracle, mode, crash_at);
        }
        self.prepare()?;
        self.cluster.injector().crash_at(crash_at);
        self.cluster.set_faults(self.scenario.faults.source());
        self.start_all();
        self.chaos()?;
        self.heal();
        self.come_to_rest(oracle)?;
        // All but the last come with faults; the last must converge.
        for left in (0..self.scenario.redrives).rev() {
            let weather = if left == 0 {
                Weather::Calm
            } else {
                Weather::Stormy
            };
            if !self.redrive(oracle, weather)? {
                break;
            }
        }
        self.permits_come_back(oracle)
    }

    fn prepare(&self) -> Result<(), Halt> {
        let workload = self.scenario.workload;
        self.set_clocks();
        self.sim.block_on(async {
            if workload.lines {
                self.put_lines().await;
                self.cluster.create_run().await;
                return;
            }
            for number in 0..workload.small + workload.large {
                self.put(number).await;
            }
            self.cluster.create_run().await;
        })?;
        self.cluster.set_behaviour(self.scenario.handler);
        Ok(())
    }

    fn set_clocks(&self) {
        for clock in &self.scenario.clocks {
            let skew = Skew {
                offset_ms: clock.offset_ms,
                drift_ppm: clock.drift_ppm,
            };
            self.sim.skew(&clock.node, skew);
        }
        self.sim.set_schedule(self.scenario.schedule);
    }

    /// Writes the so many-th object, for the first time or again.
    async fn put(&self, number: u64) {
        let (key, bytes) = match self.own.map(|own| &own.data) {
            Some(Data::Objects(objects)) => objects[number as usize].clone(),
            Some(Data::Lines(_)) | None => {
                let is_small = number < self.scenario.workload.small;
                let bytes = match is_small {
                    true => scenario::SMALL_BYTES,
                    false => scenario::LARGE_BYTES,
                };
                (scenario::object(number), vec![0; bytes as usize].into())
            }
        };
        let input = &self.cluster.stores().input;
        let put = input.put(key.as_bytes(), bytes).await;
        put.expect("memory takes all");
    }

    async fn put_lines(&self) {
        let workload = self.scenario.workload;
        let items = workload.small + workload.large;
        let line = |number: u64| match self.own.map(|own| &own.data) {
            Some(Data::Lines(lines)) => format!("{}\n", lines[number as usize]),
            Some(Data::Objects(_)) | None => workload.line(number) + "\n",
        };
        let lines: String = (0..items).map(line).collect();
        let input = &self.cluster.stores().input;
        let put = input.put(LINES_KEY.as_bytes(), lines.into()).await;
        put.expect("memory takes all");
    }

    /// The number of the object of this name, where there is one.
    fn number_of(&self, name: &str) -> Option<u64> {
        let Workload {
            small,
            large,
            lines,
            ..
        } = self.scenario.workload;
        let is_there = !lines;
        (0..small + large).find(|number| is_there && scenario::object(*number) == name)
    }

    fn start_all(&self) {
        for number in 0..self.scenario.workers {
            self.start_one(number);
        }
    }

    /// Starts a process again, at once or when it has left.
    fn start(&mut self, name: &str) {
        self.leaving.insert(name.to_owned());
        self.start_those_that_left();
    }

    fn start_those_that_left(&mut self) {
        for number in 0..self.scenario.workers {
            let name = worker(number);
            if self.leaving.contains(&name) && self.start_one(number) {
                self.leaving.remove(&name);
            }
        }
    }

    /// Lets a second pass.
    fn look(&mut self) -> Result<(), Halt> {
        self.sim.run_for(LOOK_EVERY)?;
        self.start_those_that_left();
        Ok(())
    }

    /// Whether it was not there, and is now.
    fn start_one(&self, number: u32) -> bool {
        let name = worker(number);
        let over = |process: &Process| process.node().name() != name || process.is_over();
        let is_free = self.cluster.processes().iter().all(over);
        if is_free {
            self.cluster
                .start(&self.sim.node(&name), self.scenario.role(number));
        }
        is_free
    }

    fn all_over(&self) -> bool {
        self.cluster.is_over()
    }

    /// Troubles at their time; faults until the time is over.
    fn chaos(&mut self) -> Result<(), Halt> {
        enum Step<'a> {
            Begin(&'a Trouble),
            End(&'a Trouble),
        }
        let mut steps = Vec::new();
        for trouble in &self.scenario.troubles {
            steps.push((trouble.at_ms, Step::Begin(trouble)));
            steps.push((trouble.at_ms + trouble.for_ms, Step::End(trouble)));
        }
        steps.sort_by_key(|(at_ms, _)| *at_ms);
        for (at_ms, step) in steps {
            self.sim
                .run_until(Tick::default() + Duration::from_millis(at_ms))?;
            match step {
                Step::Begin(trouble) => self.begin(trouble)?,
                Step::End(trouble) => self.end(trouble)?,
            }
        }
        let healed = Tick::default() + Duration::from_secs(self.scenario.chaos_seconds);
        while self.sim.now() < healed && !self.cluster.is_undriven() {
            self.look()?;
        }
        Ok(())
    }

    fn begin(&mut self, trouble: &Trouble) -> Result<(), Halt> {
        let name = trouble.node.as_str();
        let length = Duration::from_millis(trouble.for_ms);
        let until = self.sim.now() + length;
        let what = trouble.what;
        self.sim
            .trace(&format_args!("{what:?} of {name} for {length:?}"));
        match what {
            Happening::Crash => {
                self.sim.sometimes(Probe::Killed);
                self.sim.node(name).crash();
            }
            Happening::Freeze => {
                self.sim.sometimes(Probe::Frozen);
                self.sim.node(name).freeze(length);
            }
            Happening::Cut => self.cluster.table().cut(name, until),
            Happening::Heat => self.cluster.table().heat(until),
            Happening::Drain => {
                for process in self.cluster.processes() {
                    if process.node().name() == name && !process.is_over() {
                        self.sim.sometimes(Probe::Drained);
                        process.drain();
                    }
                }
            }
            Happening::Overwrite => {
                if let Some(number) = self.number_of(name) {
                    self.sim.sometimes(Probe::Overwritten);
                    self.sim.block_on(self.put(number))?;
                }
            }
            Happening::Delete => {
                if self.number_of(name).is_some() {
                    self.sim.sometimes(Probe::Deleted);
                    let input = self.cluster.stores().input.clone();
                    let deleted = self
                        .sim
                        .block_on(async { input.delete(name.as_bytes()).await })?;
                    deleted.expect("memory deletes all");
                }
            }
            Happening::Pause if self.scenario.events.is_some() => self.pause_window()?,
            Happening::Pause => {
                let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
                let wished = self
                    .sim
                    .block_on(async { ledger.wish(&run, Wish::Pause).await })?;
                // One that has ended cannot be paused.
                if wished.is_ok() {
                    self.sim.sometimes(Probe::AskedToPause);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, trouble: &Trouble) -> Result<(), Halt> {
        match trouble.what {
            Happening::Crash | Happening::Drain => self.start(&trouble.node),
            Happening::Pause if self.scenario.events.is_some() => self.resume_windows()?,
            Happening::Pause => self.resume()?,
            Happening::Freeze
            | Happening::Cut
            | Happening::Heat
            | Happening::Overwrite
            | Happening::Delete => {}
        }
        Ok(())
    }

    /// Nothing goes wrong any more, and every node is back.
    fn heal(&self) {
        self.sim.trace(&"healed");
        self.cluster.set_faults(Source::Calm);
        self.cluster.injector().crash_at(None);
        self.start_all();
    }

    fn resume(&mut self) -> Result<(), Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.sim.block_on(async { ledger.run(&run).await })?;
        let row = row.expect("the run has a row");
        if row.state.status != RunStatus::Paused {
            return Ok(());
        }
        let resumed = self
            .sim
            .block_on(async { ledger.resume(&row, None).await })?;
        if resumed.is_ok() {
            self.sim.sometimes(Probe::Resumed);
            self.start_all();
        }
        Ok(())
    }

    fn status(&self) -> Result<RunStatus, Halt> {
        if self.scenario.events.is_some() {
            return self.worst_of_windows();
        }
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.sim.block_on(async { ledger.run(&run).await })?;
        Ok(row.map_or(RunStatus::Running, |row| row.state.status))
    }

    fn until_all_left(&mut self, latest: Tick) -> Result<(), Halt> {
        while !self.all_over() && self.sim.now() < latest {
            if self.cluster.is_undriven() {
                self.send_workers_home();
            } else if self.may_have_missed_a_resume() && self.status()? == RunStatus::Running {
                // A router alone would wait for ever for the worker that left.
                self.start_all();
            }
            self.look()?;
        }
        Ok(())
    }

    /// Those who left while it was PAUSED did not see that it was resumed meanwhile, and one that was drained may have
    /// left only now: their operator starts them again.
    fn may_have_missed_a_resume(&self) -> bool {
        self.sim.happened(Probe::Resumed) || self.sim.happened(Probe::Drained)
    }

    /// A worker waits for more until its operator sees that there is none.
    fn send_workers_home(&self) {
        for process in self.cluster.processes() {
            if process.role() == Role::Worker && !process.is_over() {
                process.drain();
            }
        }
    }

    /// Everybody leaves in time, and what they leave keeps every promise.
    fn come_to_rest(&mut self, oracle: &mut Oracle<'_>) -> Result<(), Halt> {
        let latest = self.sim.now() + self.calm_max;
        self.resumed = 0;
        loop {
            self.until_all_left(latest)?;
            let status = self.status()?;
            if self.sim.now() >= latest || self.resumed >= RESUMES_MAX {
                break;
            }
            self.resumed += 1;
            match status {
                RunStatus::Paused => {
                    self.sim.sometimes(Probe::RestedPaused);
                    self.resume()?;
                }
                RunStatus::Running if self.may_have_missed_a_resume() => self.start_all(),
                RunStatus::Running
                | RunStatus::Succeeded
                | RunStatus::Failed
                | RunStatus::Aborted => break,
            }
        }
        let status = self.status()?;
        match status {
            RunStatus::Succeeded => self.sim.sometimes(Probe::Succeeded),
            RunStatus::Failed => self.sim.sometimes(Probe::Failed),
            RunStatus::Paused | RunStatus::Running | RunStatus::Aborted => {}
        }
        let late = (!self.all_over()).then(|| {
            let status = status.as_str();
            let calm = self.calm_max;
            format!("{calm:?} after it was healed the run is {status}, and processes work on it")
        });
        oracle.note("L2", late);
        oracle.at_any_time();
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.sim.block_on(async { ledger.run(&run).await })?;
        let row = row.expect("the run has a row");
        let (pages, places) = oracle.pages_at_rest(&row)?;
        // What a service elsewhere did to a call is not known here, nor how long it took.
        if self.own.is_some() || self.ground.is_some() {
            return Ok(());
        }
        self.evidence().check(oracle, &pages, &places)
    }

    /// False if there is nothing to redrive.
    fn redrive(&mut self, oracle: &mut Oracle<'_>, weather: Weather) -> Result<bool, Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.sim.block_on(async { ledger.run(&run).await })?;
        let row = row.expect("the run has a row");
        let before = oracle.succeeded()?;
        let left = before.len() as u64 == row.total;
        if left || row.state.status == RunStatus::Running || row.total_final().is_none() {
            return Ok(false);
        }
        // What was deleted is put back, and what changed is taken as it is now.
        let refresh = self.scenario.changes_input();
        let Workload {
            small,
            large,
            lines,
            ..
        } = self.scenario.workload;
        if refresh && !lines {
            self.sim.block_on(async {
                for number in 0..small + large {
                    self.put(number).await;
                }
            })?;
        }
        let failed_only = self.scenario.redrive_failed_only && weather == Weather::Calm;
        let narrow = self.scenario.rules.selection.as_ref();
        let narrow = narrow.filter(|_| weather == Weather::Calm && self.own.is_none());
        let selection = narrow.cloned().unwrap_or_else(|| Selection {
            pending: failed_only.then_some(false),
            ..Selection::default()
        });
        let evidence = self.evidence();
        let chosen = evidence.choose(oracle, &selection)?;
        let selective = failed_only || narrow.is_some();
        // Which object an item is, is not known where some came or went meanwhile.
        let by_input = selection.key.is_some()
            || selection.larger_bytes.is_some()
            || selection.smaller_bytes.is_some();
        let is_known = !(by_input && self.scenario.changes_input());
        let redrive = Redrive { selection, refresh };
        let failed = oracle.failed()?;
        let event = RunEvent::Redrive;
        let changed = self
            .sim
            .block_on(async { ledger.change_run(&row, &event, Some(&redrive)).await })?;
        if changed.is_err() {
            return Ok(false);
        }
        self.sim.sometimes(Probe::Redriven);
        self.sim.trace(&"redriven");
        match weather {
            Weather::Calm => self.cluster.set_behaviour(Behaviour {
                flaky: 0,
                bad: 0,
                throttled: 0,
                panics: 0,
                killers: 0,
                slow: 0,
                ..self.scenario.handler
            }),
            Weather::Stormy => {
                self.sim.sometimes(Probe::RedrivenInStorm);
                self.cluster.set_faults(self.scenario.faults.source());
            }
        }
        self.start_all();
        match weather {
            Weather::Stormy => self.storm(Duration::from_secs(self.scenario.chaos_seconds / 2))?,
            Weather::Calm if selective => {
                self.until_all_left(self.sim.now() + self.calm_max)?;
                self.sim.sometimes(Probe::RedrivenSelected);
                let generation = row.state.generation.0 + 1;
                let pages = oracle.pages()?;
                if is_known {
                    let broken = evidence.chosen_wrong(&chosen, generation, &pages)?;
                    oracle.note("L5", broken);
                }
                if failed_only && narrow.is_none() {
                    self.sim.sometimes(Probe::RedrivenFailedOnly);
                    oracle.settled_again(&failed)?;
                }
            }
            Weather::Calm => {}
        }
        self.come_to_rest(oracle)?;
        oracle.redriven(&before, row.state.generation.0 + 1);
        if weather == Weather::Stormy || self.own.is_some() || !is_known {
            return Ok(true);
        }
        let after = self.sim.block_on(async { ledger.run(&run).await })?;
        let after = after.expect("the run has a row");
        let successes = oracle.succeeded()?;
        let succeeded = successes.len() as u64;
        // What was pending and not selected may have ended late, by those who only then heard of the former end
        // or found its holder dead.
        // What a former redrive asked for may arrive late too.
        let may_be_late = row.state.generation.0 > 0 && self.cluster.injector().struck() > 0;
        let left = match may_be_late {
            true => chosen.left.difference(&successes).count() as u64,
            false => chosen.left.len() as u64,
        };
        let (mut late, mut late_failures) = (0, 0);
        if selective {
            late_failures = oracle.failed()?.difference(&failed).count() as u64;
            late = oracle.aborted()?.difference(&chosen.left).count() as u64 + late_failures;
        }
        // What was left as it was may be too much for a success.
        let good = late_failures > 0 || left > 0 || after.state.status == RunStatus::Succeeded;
        let converged = good && succeeded + left + late == after.total;
        let broken = (!converged).then(|| {
            let (status, total) = (after.state.status.as_str(), after.total);
            format!(
                "a redrive without failures ended as {status}, {succeeded} of {total} succeeded"
            )
        });
        oracle.note("L5", broken);
        Ok(true)
    }

    /// Faults for so long, or until everybody left.
    fn storm(&mut self, length: Duration) -> Result<(), Halt> {
        let healed = self.sim.now() + length;
        while self.sim.now() < healed && !self.cluster.is_undriven() {
            self.look()?;
        }
        self.heal();
        Ok(())
    }

    /// L4: once a session lives that buries the dead, nothing is lent.
    fn permits_come_back(&mut self, oracle: &mut Oracle<'_>) -> Result<(), Halt> {
        if self.scenario.is_calm() && self.cluster.injector().struck() == 0 {
            oracle.nobody_is_left()?;
        }
        if oracle.lent_or_live()?.is_none() {
            oracle.note("L4", None);
            return Ok(());
        }
        self.sim.sometimes(Probe::PermitsCameBack);
        let janitor = self.sim.node("janitor");
        self.cluster.watch_only(&janitor);
        let latest = self.sim.now() + Duration::from_secs(150);
        while oracle.lent_or_live()?.is_some() && self.sim.now() < latest {
            self.look()?;
        }
        let left = oracle.lent_or_live()?;
        oracle.note("L4", left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{FaultSource, Profile};

    #[test]
    fn a_plan_of_the_faults_that_struck_replays_the_same_trace() {
        for seed in 0..20 {
            let scenario = Scenario::generate(seed, Profile::Swarm);
            let swarm = run(&scenario, Text::Hashed);
            let plan = Scenario {
                faults: FaultSource::Plan(swarm.fired.clone()),
                ..scenario
            };
            let replay = run(
                &Scenario::parse(&plan.to_json()).expect("ours"),
                Text::Hashed,
            );
            assert_eq!(replay.trace_hash, swarm.trace_hash, "seed {seed}");
        }
    }
}
