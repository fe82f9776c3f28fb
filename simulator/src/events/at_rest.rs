//! What must hold of a bucket's events once all is quiet: what the windows have is compared with what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trommel::core::id::RunId;
use trommel::core::item::{Input, Pin};
use trommel::core::outcome::Outcome;
use trommel::core::page::Mark;
use trommel::core::run::RunStatus;
use trommel::ledger::IntakeCounts;
use trommel::shell::report::{RunReader, audit};

use super::{Bucket, JUNK_SORTS, PREFIX, State, junk};
use crate::cluster::Cluster;
use crate::exec::lock;
use crate::halt::Halt;
use crate::oracle::Oracle;
use crate::probe::Probe;
use crate::simulation::Simulation;

/// An item as some window has it.
struct Taken {
    run: RunId,
    status: RunStatus,
    mark: Mark,
}

/// What must hold once all is quiet: each event that was news is one item, and nothing else is.
pub fn at_rest(oracle: &mut Oracle<'_>, sim: &Simulation, bucket: &Bucket) -> Result<(), Halt> {
    let cluster = &bucket.cluster;
    let looked = sim.block_on(async { look(cluster).await })?;
    let Looked {
        items,
        problems,
        met,
        windows,
    } = match looked {
        Ok(looked) => looked,
        Err(problem) => {
            oracle.note("S3", Some(problem));
            return Ok(());
        }
    };
    if windows > 1 {
        sim.sometimes(Probe::Windows);
    }
    for problem in problems {
        oracle.note("S3", Some(problem));
    }
    let log = lock(&bucket.log);
    oracle.counted("S3", windows);
    for ((key, etag), taken) in &items {
        let known = log.states.get(key).is_some_and(|states| {
            let is = |state: &State| match state {
                State::Written { pin, .. } => *pin.etag == **etag,
                State::Removed => false,
            };
            states.iter().any(is)
        });
        let runs: Vec<&RunId> = taken.iter().map(|taken| &taken.run).collect();
        let broken = if !known || !key.starts_with(PREFIX) {
            Some(format!(
                "{key} in the state {etag} is an item, and nobody wrote it so"
            ))
        } else if taken.len() > 1 {
            Some(format!(
                "{key} in the state {etag} was taken {} times, in {runs:?}",
                taken.len()
            ))
        } else {
            None
        };
        oracle.note("S12", broken);
    }
    for (key, states) in log.states.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        if states.len() > 1 {
            sim.sometimes(Probe::Overwritten);
        }
        if matches!(states.last(), Some(State::Removed)) {
            sim.sometimes(Probe::Deleted);
        }
        for pin in work(states, &log.untold) {
            let etag = &pin.etag;
            let taken = items.get(&(key.clone(), etag.to_string()));
            let broken = match taken.and_then(|taken| taken.first()) {
                None => Some(format!(
                    "{key} in the state {etag} is in no window, and no message tells of it"
                )),
                Some(taken) => match taken.mark.outcome() {
                    Some(Outcome::Skipped) => {
                        Some(format!("{key} in the state {etag} was skipped"))
                    }
                    None if taken.status == RunStatus::Succeeded => Some(format!(
                        "{key} is pending in {}, which succeeded",
                        taken.run
                    )),
                    Some(_) | None => None,
                },
            };
            oracle.note("S5", broken);
        }
    }
    let broken = (met.quarantined != log.junk).then(|| {
        let (junk, quarantined) = (log.junk, met.quarantined);
        format!("{junk} messages could not be read, {quarantined} are in quarantine")
    });
    oracle.note("S5", broken);
    // With faults what was met may not be counted. A message of which one record must wait is met again, whole.
    if bucket.is_calm && cluster.injector().struck() == 0 {
        sim.sometimes(Probe::EachRecordMet);
        let fates = [
            met.taken,
            met.duplicates,
            met.superseded,
            met.removed,
            met.ignored,
        ];
        let broken = (fates.iter().sum::<u64>() < log.sent).then(|| {
            let sent = log.sent;
            format!("{sent} records were sent, and these are their fates: {met:?}")
        });
        oracle.note("S3", broken);
    }
    Ok(())
}

/// The states of an object that must be items: its last; all versions that were told, and the last of them.
fn work<'a>(states: &'a [State], untold: &BTreeSet<Arc<str>>) -> Vec<&'a Pin> {
    let last = states.len().saturating_sub(1);
    let is_work = |(number, state): (usize, &'a State)| match state {
        State::Written { pin, .. } => {
            let is_told_version = pin.version.is_some() && !untold.contains(&pin.etag);
            (number == last || is_told_version).then_some(pin)
        }
        State::Removed => None,
    };
    states.iter().enumerate().filter_map(is_work).collect()
}

struct Looked {
    items: BTreeMap<(String, String), Vec<Taken>>,
    problems: Vec<String>,
    /// What all windows together met.
    met: IntakeCounts,
    windows: u64,
}

async fn look(cluster: &Cluster) -> Result<Looked, String> {
    let ledger = cluster.ledger();
    let mut looked = Looked {
        items: BTreeMap::new(),
        problems: Vec::new(),
        met: IntakeCounts::default(),
        windows: 0,
    };
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let known: Vec<String> = (0..JUNK_SORTS).map(junk).collect();
    for summary in ledger.runs().await.map_err(|error| words(&error))? {
        looked.windows += 1;
        let row = ledger
            .run(&summary.id)
            .await
            .map_err(|error| words(&error))?;
        let status = row.state.status;
        let (_, met) = ledger
            .total_and_met(&row)
            .await
            .map_err(|error| words(&error))?;
        let kept = ledger
            .quarantined(&row.job, usize::MAX)
            .await
            .map_err(|error| words(&error))?;
        let met = met.unwrap_or_default();
        let counted = met.quarantined;
        if let Some((_, message)) = kept.iter().find(|(_, kept)| !known.contains(&kept.body)) {
            let problem = format!("{}: a message is not kept as it was: {message:?}", row.id);
            looked.problems.push(problem);
        }
        let kept = kept.iter().filter(|(run, _)| *run == row.id).count();
        if counted != kept as u64 {
            looked.problems.push(format!(
                "{}: {counted} quarantined by count, {kept} are there",
                row.id
            ));
        }
        let IntakeCounts {
            taken,
            duplicates,
            superseded,
            removed,
            ignored,
            quarantined,
        } = met;
        looked.met.taken += taken;
        looked.met.duplicates += duplicates;
        looked.met.superseded += superseded;
        looked.met.removed += removed;
        looked.met.ignored += ignored;
        looked.met.quarantined += quarantined;
        let audit = audit(&ledger, &row.id)
            .await
            .map_err(|error| words(&error))?;
        for problem in audit.problems {
            looked.problems.push(format!("{}: {problem}", row.id));
        }
        let reader = RunReader {
            ledger: ledger.clone(),
            job: cluster.job().clone(),
            stores: cluster.stores_of(&row.id),
            row,
        };
        let mut next = 0;
        loop {
            let parts = reader.parts(next).await.map_err(|error| words(&error))?;
            let Some(last) = parts.last() else { break };
            next = last.number + 1;
            for part in parts {
                let view = reader.part(part).await.map_err(|error| words(&error))?;
                if let Err(error) = &view.inputs {
                    looked
                        .problems
                        .push(format!("{}: a part cannot be read: {error}", reader.row.id));
                }
                for item in reader.items(&view).await.map_err(|error| words(&error))? {
                    let Some(Input::Object(object)) = item.input.as_deref() else {
                        continue;
                    };
                    let name = String::from_utf8_lossy(&object.key).into_owned();
                    let taken = Taken {
                        run: reader.row.id.clone(),
                        status,
                        mark: item.mark,
                    };
                    let state = (name, object.pin.etag.to_string());
                    looked.items.entry(state).or_default().push(taken);
                }
            }
        }
    }
    Ok(looked)
}
