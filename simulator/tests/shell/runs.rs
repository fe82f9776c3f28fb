//! What the ledger keeps of a run for those who come later: its job, its wishes, what was compiled of it.

use trommel::core::id::{Generation, RunId};
use trommel::core::run::{BreachStops, Limits, RunEvent, Wish};
use trommel::core::time::Timestamp;
use trommel::core::tolerance::Tolerance;
use trommel::ledger::{LedgerError, NewRun};

use crate::scenario::{Scenario, job};

fn new_run(id: &str, text: &str, tolerated: u64) -> NewRun {
    NewRun {
        id: RunId::new(id),
        job: trommel::core::id::JobName::new("job"),
        job_text: text.to_owned(),
        job_file: format!("{text}.toml"),
        base: format!("/{text}"),
        options: format!("--{text}"),
        limits: Limits {
            tolerance: Tolerance {
                count: Some(tolerated),
                percent: None,
            },
            breach_stops: BreachStops::AtOnce,
        },
        created: Timestamp(7),
    }
}

#[test]
fn a_run_is_read_as_it_was_begun_and_as_it_was_changed_since() {
    let scenario = Scenario::new(1, job(4, 0));
    let ledger = scenario.cluster.ledger();
    let (id, other) = (RunId::new("one"), RunId::new("two"));
    scenario.block_on(async {
        for name in ["one", "two"] {
            let begun = ledger.create_run(&new_run(name, name, 3)).await;
            begun.expect("the name is free");
        }
        let again = ledger.create_run(&new_run("one", "again", 9)).await;
        again.expect_err("the name is taken");
        let listed = ledger.runs().await.expect("no faults");
        let listed: Vec<&RunId> = listed.iter().map(|run| &run.id).collect();
        assert_eq!(listed, [&id, &other]);

        let row = ledger.run(&id).await.expect("it is there");
        assert_eq!(
            (row.job_text.as_str(), row.job_file.as_str()),
            ("one", "one.toml")
        );
        assert_eq!((row.base.as_str(), row.options.as_str()), ("/one", "--one"));
        assert_eq!((row.created, row.compiled), (Timestamp(7), None));
        ledger
            .compiled(&id, Generation(0))
            .await
            .expect("it is there");
        let replaced = ledger.replace_job(&new_run("one", "new", 5)).await;
        replaced.expect("it is there");
        let row = ledger.run(&id).await.expect("it is there");
        assert_eq!(
            (row.job_text.as_str(), row.options.as_str()),
            ("new", "--new")
        );
        assert_eq!(row.state.limits.tolerance.count, Some(5));
        assert_eq!(row.compiled, Some(Generation(0)));
        let none = RunId::new("none");
        ledger
            .compiled(&none, Generation(0))
            .await
            .expect_err("there is none");
        assert!(matches!(
            ledger.run(&none).await,
            Err(LedgerError::NotFound(_))
        ));
    });
}

#[test]
fn a_wish_is_for_a_run_that_runs() {
    let scenario = Scenario::new(1, job(4, 0));
    let ledger = scenario.cluster.ledger();
    let id = RunId::new("one");
    scenario.block_on(async {
        let begun = ledger.create_run(&new_run("one", "one", 3)).await;
        begun.expect("the name is free");
        for wish in [Wish::Stop, Wish::Pause] {
            ledger.wish(&id, wish).await.expect("it runs");
            let row = ledger.run(&id).await.expect("it is there");
            assert_eq!(row.wish, Some(wish));
        }
        let row = ledger.run(&id).await.expect("it is there");
        let stopped = ledger.change_run(&row, &RunEvent::Stop, None).await;
        stopped.expect("nobody else changes it");
        assert_eq!(ledger.wish(&id, Wish::Pause).await, Err(LedgerError::Raced));
        // Who decided by what he had read before decides nothing.
        let late = ledger.change_run(&row, &RunEvent::Stop, None).await;
        assert_eq!(late, Err(LedgerError::Raced));
        let row = ledger.run(&id).await.expect("it is there");
        assert_eq!(row.wish, None);
    });
}
