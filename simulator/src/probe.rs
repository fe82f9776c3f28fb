//! Things that must happen sometimes: a search in which one never does has not looked where it should.

use std::collections::BTreeMap;

macro_rules! probes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// Something that may happen, by what a report calls it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Probe {
            $($(#[doc = $doc])* $name,)*
        }

        impl Probe {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What a report calls it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

probes! {
    /// By a scenario.
    Killed = "a process was killed",
    /// By a scenario.
    Frozen = "a process was frozen",
    /// By a scenario.
    Drained = "a process was drained",
    /// By a scenario.
    AskedToPause = "a run was asked to pause",
    /// By an operator.
    Resumed = "a run was resumed",
    /// It stood so when everybody had left.
    RestedPaused = "a run came to rest as PAUSED",
    /// It stood so when everybody had left.
    Succeeded = "a run succeeded",
    /// It stood so when everybody had left.
    Failed = "a run failed",
    /// Too many of the last items had failed.
    Braked = "fail_fast stopped a run",
    /// By an operator.
    Redriven = "a run was redriven",
    /// Faults went on in it.
    RedrivenInStorm = "a redrive met faults",
    /// By class, by size, by name, …
    RedrivenSelected = "a redrive took a selection",
    /// What was pending was left out.
    RedrivenFailedOnly = "a redrive took only what had failed",
    /// While it was read or worked on.
    Overwritten = "an object was overwritten",
    /// While it was read or worked on.
    Deleted = "an object was deleted",
    /// After everybody had left, as nobody had known.
    PermitsCameBack = "a dead session's permits came back",
    /// Another session marked it so.
    MarkedDead = "a session was marked dead",
    /// A page went from a dead session to the living.
    TakenOver = "a page was taken over",
    /// Its retry was far off.
    Waited = "a page waited for a retry",
    /// A second router or reader came too late.
    LostARace = "a write came too late",
    /// The same token within ten minutes.
    TokenKnown = "a transaction was known by its token",
    /// Long after its sender gave up.
    ArrivedLate = "a request arrived late",
    /// Its partition was hot.
    WasHot = "a write met a hot partition",
    /// Between a node and the table.
    WasCut = "a request met a cut link",
    /// Out of the function lane.
    Escalated = "an item moved to the container lane",
    /// More than one item in it.
    Batch = "a call carried a batch",
    /// After the first.
    CalledAgain = "an item was called again",
    /// By its lane's timeout, or at the end of its session.
    Dropped = "a call was dropped before its end",
    /// In the ledger.
    SettledInParts = "a page was settled in several writes",
    /// In event mode.
    Windows = "events came into more than one window",
    /// In event mode.
    Versions = "a bucket kept versions",
    /// In event mode, on a day without faults.
    EachRecordMet = "each record that was sent was counted",
    /// In event mode.
    Reconciled = "a reconcile found what no event told",
    /// What lies below it is not read again.
    LowWaterRose = "a low water rose",
    /// Anew, from the beginning.
    LowWaterRoseAgain = "a low water rose in a redrive",
    /// By sessions that need not wait for each other.
    CountedApart = "two rows of a tally were counted in",
    /// With a manifest.
    Compiled = "result files were compiled",
}

/// How often each happened.
pub type Probes = BTreeMap<Probe, u64>;
