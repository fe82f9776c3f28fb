//! Carries out a scenario: chaos first, then everything is healed and the run must come to its end.

mod chaos;
mod redriving;
mod rest;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use trommel::core::price::Usage;
use trommel::core::run::RunStatus;
use trommel::core::time::Tick;
use trommel::ports::table::TableProfile;

use crate::budget::Budget;
use crate::charges::Policy;
use crate::cluster::Cluster;
use crate::evidence::Evidence;
use crate::halt::{Halt, Limits};
use crate::node::{Node, Skew};
use crate::oracle::{Compared, Oracle, Violation};
use crate::own::{Data, EndedItem, Own};
use crate::point::{Kind, Operation, Point};
use crate::probe::Probes;
use crate::scenario::{self, LINES_KEY, Scenario, Workload, worker};
use crate::services::Ground;
use crate::simulation::Simulation;
use redriving::Weather;

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
        if self.leaving.is_empty() {
            return;
        }
        for number in 0..self.scenario.workers {
            let name = worker(number);
            if self.leaving.contains(&name) && self.start_one(number) {
                self.leaving.remove(&name);
            }
        }
    }

    /// Lets a second pass.
    fn look(&mut self) -> Result<(), Halt> {
        self.look_until(self.sim.now() + LOOK_EVERY)
    }

    /// Lets a second pass, or less up to this moment.
    fn look_until(&mut self, latest: Tick) -> Result<(), Halt> {
        self.sim
            .run_until(latest.min(self.sim.now() + LOOK_EVERY))?;
        self.start_those_that_left();
        Ok(())
    }

    /// Whether it was not there, and is now.
    fn start_one(&self, number: u32) -> bool {
        let name = worker(number);
        let latest = self.cluster.process(&name);
        let is_free = latest.is_none_or(|process| process.is_over());
        if is_free {
            self.cluster
                .start(&self.sim.node(&name), self.scenario.role(number));
        }
        is_free
    }

    /// Whether everybody has left, and nobody is to start who had not left yet.
    fn all_over(&self) -> bool {
        self.leaving.is_empty() && self.cluster.is_over()
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
