//! A run: one start of a job, from its first item to its verdict, and on through its redrives.
//!
//! ```text
//!             verdict              ┌──────────── redrive ───────────┐
//!   RUNNING ──────────▶ SUCCEEDED ─┤                                ▼
//!     │ ▲  └──────────▶ FAILED ────┼──────────────────────────▶ RUNNING
//!     │ └─ resume ── PAUSED ───────┤                       (next generation)
//!     └── pause ───▶   │           │
//!     └── stop ──▶ ABORTED ◀─ stop ┘ (of PAUSED)
//! ```

use serde::{Deserialize, Serialize};

use super::id::Generation;
use super::tolerance::{Breach, Tolerance};

/// Where a run stands; the names are those of DescribeMapRun, and PAUSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// Items are, or may be, worked on.
    Running,
    /// Stopped for a while: everything is kept, `resume` goes on.
    Paused,
    /// All items settled within the tolerance.
    Succeeded,
    /// The tolerance was exceeded, or the input could not be read.
    Failed,
    /// Stopped by a person.
    Aborted,
}

impl RunStatus {
    /// All, for tables and tests.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Aborted,
    ];

    /// As rows hold it and people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Aborted => "ABORTED",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether only a redrive changes it.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Aborted => true,
            Self::Running | Self::Paused => false,
        }
    }
}

/// Why a run is not, or no longer, running. Named in the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Reason {
    /// Too many failures.
    Breach {
        /// Which.
        breach: Breach,
    },
    /// The input could not be read.
    Input {
        /// The problem, and where.
        problem: String,
    },
    /// A person asked.
    Asked,
    /// The foreground process was asked to end.
    Interrupted,
    /// What the redrive selected is done; items it left out are still pending.
    SelectionDone {
        /// How many.
        pending: u64,
    },
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Breach { breach } => breach.fmt(f),
            Self::Input { problem } => write!(f, "the input cannot be read: {problem}"),
            Self::Asked => f.write_str("asked"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::SelectionDone { pending } => {
                write!(
                    f,
                    "the selection is done; {pending} items it left out are pending"
                )
            }
        }
    }
}

/// A wish that another process writes and runners obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Stop working, keep everything.
    Pause,
    /// End the run.
    Stop,
}

impl Wish {
    /// As rows hold it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Stop => "stop",
        }
    }

    /// The wish of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pause, Self::Stop]
            .into_iter()
            .find(|wish| wish.as_str() == name)
    }
}

/// How a breach is judged; a person may change it when resuming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The budget.
    pub tolerance: Tolerance,
    /// Whether a breach stops the run before its end.
    pub breach_stops: BreachStops,
}

/// Whether a breach stops a run before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BreachStops {
    /// As soon as it is known.
    AtOnce,
    /// Never: all items are worked on, and the verdict is then FAILED (`--to-the-end`).
    AtTheEnd,
}

/// The part of a run's state that decides what may happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it stands.
    pub status: RunStatus,
    /// Redrives so far.
    pub generation: Generation,
    /// Why it is not running.
    pub reason: Option<Reason>,
    /// How it is judged.
    pub limits: Limits,
}

/// What may happen to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The judge: all settled, tolerance kept.
    Succeed,
    /// The judge: it failed.
    Fail(Reason),
    /// Stop working, keep everything.
    Pause(Reason),
    /// Go on, perhaps with new limits.
    Resume(Option<Limits>),
    /// End it.
    Stop,
    /// Take items again, in a new generation.
    Redrive,
}

/// Why an event does nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// It is so already.
    #[error("the run is {} already", .0.as_str())]
    Already(RunStatus),
    /// The run has ended.
    #[error("the run has ended: it is {}", .0.as_str())]
    Ended(RunStatus),
    /// A run must not be worked on while it is redriven.
    #[error("the run is RUNNING; pause or stop it first")]
    StillRunning,
    /// The judge's news come too late.
    #[error("the run is {}, not RUNNING", .0.as_str())]
    NotRunning(RunStatus),
    /// Going on as before would pause it again at once.
    #[error("the run paused because {0}; give it a larger budget, or --to-the-end")]
    NeedsBudget(Reason),
}

impl Run {
    /// A new run.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            status: RunStatus::Running,
            generation: Generation(0),
            reason: None,
            limits,
        }
    }

    /// The state after an event, or why it does nothing.
    ///
    /// # Errors
    /// The refusal; the run stays as it is.
    pub fn apply(&self, event: &RunEvent) -> Result<Self, RunRefusal> {
        match (self.status, event) {
            (RunStatus::Running, RunEvent::Succeed) => Ok(self.at(RunStatus::Succeeded, None)),
            (RunStatus::Running, RunEvent::Fail(reason)) => {
                Ok(self.at(RunStatus::Failed, Some(reason)))
            }
            (RunStatus::Running, RunEvent::Pause(reason)) => {
                Ok(self.at(RunStatus::Paused, Some(reason)))
            }
            (RunStatus::Running | RunStatus::Paused, RunEvent::Stop) => {
                Ok(self.at(RunStatus::Aborted, Some(&Reason::Asked)))
            }
            (RunStatus::Running, RunEvent::Resume(limits)) => Ok(self.resumed(*limits)),
            (RunStatus::Paused, RunEvent::Resume(limits)) => self.resume(*limits),
            (
                RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted,
                RunEvent::Redrive,
            ) => {
                let generation = self.generation.next();
                Ok(Self {
                    generation,
                    ..self.at(RunStatus::Running, None)
                })
            }
            (RunStatus::Running, RunEvent::Redrive) => Err(RunRefusal::StillRunning),
            (
                RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted,
                RunEvent::Succeed | RunEvent::Fail(_),
            ) => Err(RunRefusal::NotRunning(self.status)),
            (RunStatus::Paused, RunEvent::Pause(_)) => Err(RunRefusal::Already(self.status)),
            (RunStatus::Aborted, RunEvent::Stop) => Err(RunRefusal::Already(self.status)),
            (RunStatus::Succeeded | RunStatus::Failed, RunEvent::Stop)
            | (
                RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted,
                RunEvent::Pause(_) | RunEvent::Resume(_),
            ) => Err(RunRefusal::Ended(self.status)),
        }
    }

    fn resume(&self, limits: Option<Limits>) -> Result<Self, RunRefusal> {
        match (&self.reason, limits) {
            (Some(reason @ Reason::Breach { .. }), None) => {
                Err(RunRefusal::NeedsBudget(reason.clone()))
            }
            (
                None
                | Some(
                    Reason::Breach { .. }
                    | Reason::Input { .. }
                    | Reason::Asked
                    | Reason::Interrupted
                    | Reason::SelectionDone { .. },
                ),
                limits,
            ) => Ok(self.resumed(limits)),
        }
    }

    fn resumed(&self, limits: Option<Limits>) -> Self {
        let limits = limits.unwrap_or(self.limits);
        Self {
            limits,
            ..self.at(RunStatus::Running, None)
        }
    }

    fn at(&self, status: RunStatus, reason: Option<&Reason>) -> Self {
        Self {
            status,
            reason: reason.cloned(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn limits(count: u64) -> Limits {
        let tolerance = Tolerance {
            count: Some(count),
            percent: None,
        };
        Limits {
            tolerance,
            breach_stops: BreachStops::AtOnce,
        }
    }

    fn events() -> Vec<RunEvent> {
        vec![
            RunEvent::Succeed,
            RunEvent::Fail(Reason::Input {
                problem: "gone".into(),
            }),
            RunEvent::Pause(Reason::Asked),
            RunEvent::Resume(None),
            RunEvent::Resume(Some(limits(9))),
            RunEvent::Stop,
            RunEvent::Redrive,
        ]
    }

    fn name(event: &RunEvent) -> &'static str {
        match event {
            RunEvent::Succeed => "succeed",
            RunEvent::Fail(_) => "fail",
            RunEvent::Pause(_) => "pause",
            RunEvent::Resume(None) => "resume",
            RunEvent::Resume(Some(_)) => "resume with new limits",
            RunEvent::Stop => "stop",
            RunEvent::Redrive => "redrive",
        }
    }

    #[test]
    fn every_status_meets_every_event() {
        let mut table = String::new();
        let breach = Breach::Count {
            failures: 1,
            tolerated: 0,
        };
        for (status, reason) in [
            (RunStatus::Running, None),
            (RunStatus::Paused, Some(Reason::Asked)),
            (RunStatus::Paused, Some(Reason::Breach { breach })),
            (RunStatus::Succeeded, None),
            (RunStatus::Failed, Some(Reason::Breach { breach })),
            (RunStatus::Aborted, Some(Reason::Asked)),
        ] {
            for event in events() {
                let run = Run {
                    status,
                    reason: reason.clone(),
                    ..Run::new(limits(0))
                };
                let because = match &reason {
                    Some(Reason::Breach { .. }) => " (breach)",
                    _ => "",
                };
                let what = match run.apply(&event) {
                    Ok(after) => format!(
                        "{} generation {}{}",
                        after.status.as_str(),
                        after.generation,
                        after
                            .reason
                            .map(|r| format!(" because {r}"))
                            .unwrap_or_default()
                    ),
                    Err(refusal) => format!("refused: {refusal}"),
                };
                let left = format!("{}{because} + {}", status.as_str(), name(&event));
                writeln!(table, "{left:<42} => {what}").expect("a String takes everything");
            }
        }
        insta::assert_snapshot!("run_events", table);
    }

    #[test]
    fn a_run_paused_by_a_breach_goes_on_only_with_a_new_budget() {
        let breach = Breach::Count {
            failures: 1,
            tolerated: 0,
        };
        let run = Run::new(limits(0));
        let paused = run
            .apply(&RunEvent::Pause(Reason::Breach { breach }))
            .expect("pauses");
        assert!(matches!(
            paused.apply(&RunEvent::Resume(None)),
            Err(RunRefusal::NeedsBudget(_))
        ));
        let resumed = paused
            .apply(&RunEvent::Resume(Some(limits(5))))
            .expect("resumes");
        assert_eq!(resumed.limits, limits(5));
        assert_eq!(resumed.reason, None);
    }
}
