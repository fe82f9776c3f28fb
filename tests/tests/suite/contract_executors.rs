//! The contract of executors on each of them.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use trommel::adapters::command::{CommandExecutor, CommandSpec};
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::adapters::runtime_api::HandlerExecutor;
use trommel::core::class::{Class, Failure};
use trommel::core::job::{HandlerSpec, OutputMode};
use trommel::ports::Executor;
use trommel_localstack::python;
use trommel_simulator::halt::Limits;
use trommel_simulator::services::{ExecutorLink, Injector};
use trommel_simulator::simulation::Simulation;
use trommel_tests::contract::{Stage, executor};

const HANDLERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers");

/// The language of the contract, in Rust.
fn in_this_process() -> impl Executor {
    handler(|item: HandlerItem| async move {
        let event: Value = item.json()?;
        match event["do"].as_str() {
            Some("fail") => Err(Failure::new(Class::from_name("NotGood"), "as asked")),
            Some("die") => panic!("as asked"),
            Some("sleep") => std::future::pending().await,
            Some(_) | None => Ok(serde_json::json!({"n": event["n"]})),
        }
    })
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a contract takes none for a stage that is left out"
)]
fn of(executor: impl Executor + 'static) -> Option<Stage<dyn Executor>> {
    Some(Stage::new(Arc::new(executor), ()))
}

mod in_process {
    use super::*;

    trommel_tests::executor_contract!(ready(of(in_this_process())));
}

mod command {
    use super::*;

    fn stage() -> Option<Stage<dyn Executor>> {
        let spec = CommandSpec {
            argv: vec!["python3".to_owned(), format!("{HANDLERS}/contract.py")],
            cwd: "/".into(),
            output: OutputMode::Keep,
        };
        of(CommandExecutor::new(&spec, None, None).expect("python3 is there"))
    }

    trommel_tests::executor_contract!(ready(stage()));
}

mod awslambdaric {
    use super::*;

    fn stage() -> Option<Stage<dyn Executor>> {
        let packages = python::packages("awslambdaric", &[crate::journey_handlers::AWSLAMBDARIC]);
        let packages =
            packages.expect("it is installed from PyPI; that needs python3 and a package index");
        let path = format!("{}:{HANDLERS}", packages.display());
        let spec = HandlerSpec {
            argv: ["python3", "-m", "awslambdaric", "contract.handle"]
                .map(str::to_owned)
                .to_vec(),
            cwd: "/".into(),
            environment: BTreeMap::from([("PYTHONPATH".to_owned(), path)]),
            memory_bytes: None,
        };
        let timeout = Some(Duration::from_mins(1));
        of(HandlerExecutor::new(spec, timeout, OutputMode::Keep, None).expect("python3 is there"))
    }

    trommel_tests::executor_contract!(ready(stage()));
}

mod docker {
    use super::*;
    use trommel::adapters::docker::DockerExecutor;
    use trommel::core::job::{DockerSpec, Network};

    fn stage() -> Option<Stage<dyn Executor>> {
        let spec = DockerSpec {
            image: crate::docker_calls::image().to_owned(),
            argv: ["sh", "/contract.sh"].map(str::to_owned).to_vec(),
            environment: BTreeMap::new(),
            memory_bytes: None,
            cpu_millis: None,
            network: Network::None,
            output: OutputMode::Keep,
        };
        // Never swept in so short a time: other tests have containers, too.
        of(DockerExecutor::new(spec, None, Duration::from_hours(1)))
    }

    trommel_tests::executor_contract!(
        ready(stage()),
        ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"
    );
}

mod lambda {
    use super::*;
    use trommel::adapters::aws::LambdaExecutor;
    use trommel::core::job::{ExecutorSpec, LambdaSpec, LaneSpec};

    async fn stage() -> Option<Stage<dyn Executor>> {
        let emulator =
            crate::emulator_arms::emulator_with_functions("the contract of lambda").await?;
        let clients = emulator.clients().await;
        let function = crate::emulator_arms::fresh("contract");
        let source =
            std::fs::read_to_string(format!("{HANDLERS}/contract.py")).expect("a file of ours");
        emulator
            .function(&clients, &function, &source, 60)
            .await
            .expect("a new function");
        let spec = LambdaSpec { function };
        let lane = LaneSpec {
            executor: ExecutorSpec::Lambda(spec.clone()),
            object_bytes_max: None,
            max_items_per_batch: 10,
            timeout: Some(Duration::from_mins(1)),
            grace: Duration::from_secs(1),
            output: OutputMode::Keep,
        };
        of(LambdaExecutor::new(&clients, &spec, &lane, None))
    }

    trommel_tests::contract_checks! { executor, stage(), [trommel_tests::contract::MachineClock::start()],
        an_item_is_answered_with_its_output
        a_death_is_no_success_and_the_next_call_goes_on
        a_batch_has_a_report_for_each_item_in_their_order
        calls_at_one_time_have_their_own_outputs
        a_stopped_call_ends_within_its_grace
    }

    /// MiniStack names every exception alike; Lambda gives its class, which is read as the runtimes' own is.
    #[tokio::test]
    async fn a_failure_has_its_cause() {
        let Some(stage) = stage().await else { return };
        let clock = trommel_tests::contract::MachineClock::start();
        let failure = executor::failure_of_one_that_fails(&*stage.port, &*clock).await;
        assert!(failure.cause.contains("as asked"), "{failure}");
    }
}

/// The simulator's way to a handler keeps the contract on a calm day, or its faults would prove nothing.
#[test]
fn the_simulated_way_keeps_the_contract() {
    let sim = Simulation::with_limits(1, Limits::default());
    let node = sim.node("a");
    let injector = Arc::new(Injector::new(trommel_simulator::entropy::Seed(1)));
    let link = ExecutorLink::new(Arc::new(in_this_process()), &node, injector);
    let clock = node.runtime().clock;
    let checks = async {
        executor::an_item_is_answered_with_its_output(&link, &*clock).await;
        executor::a_failure_has_its_name_and_its_cause(&link, &*clock).await;
        executor::a_batch_has_a_report_for_each_item_in_their_order(&link, &*clock).await;
        executor::calls_at_one_time_have_their_own_outputs(&link, &*clock).await;
        executor::a_stopped_call_ends_within_its_grace(&link, &*clock).await;
    };
    sim.block_on(checks).expect("nothing hangs");
}
