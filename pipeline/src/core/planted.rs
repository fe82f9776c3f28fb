//! Mistakes that can be planted in the pipeline, to prove that the simulator would find them.
//!
//! They exist only with the feature `planted`, which no program for users has; without it
//! [`is_planted`] is `false` at compile time. With it, each thread has at most one mistake: that is test
//! equipment, not state of the core.

/// A mistake, each named for what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A page's writes have no condition: whoever comes last wins (S1).
    UnfencedWrites,
    /// A lease does not raise the epoch (S1).
    LeaseKeepsEpoch,
    /// A router overwrites the pages that another made (S1, S3).
    PagesMadeTwice,
    /// A settle writes its tally by itself, after the pages (S3).
    TallyApart,
    /// A settle without a clear answer adds its tally once more (S2, S3).
    TallyRepeated,
    /// A settle of a single item adds nothing to the tally (S3, L2).
    TallyForgotten,
    /// Every tally goes to generation 0 (L2, L5).
    TallyOfFirstGeneration,
    /// Failures are added to the successes (S3, S6).
    FailureTalliedAsSuccess,
    /// An item that moves to the container lane gets no page there (L2).
    EscalationUnwritten,
    /// A moved item counts as failed at its origin too (S3).
    EscalationCounted,
    /// A sweeper never tells of a page a second time (L2).
    LostHintsStayLost,
    /// A page that waits for a retry is never told of (L2).
    RetriesNeverDue,
    /// Pages of dead sessions are not taken over (L2).
    DeadKeepTheirPages,
    /// A take-over makes settled items pending again (S1, S3).
    TakeOverForgets,
    /// A take-over is announced and not written (L2).
    TakeOverNotRecorded,
    /// Low water rises beyond unsettled pages (L2).
    LowWaterTooHigh,
    /// The sweep leaves out the first shard (L2).
    LastShardUnswept,
    /// Permits of a dead session do not go back to the pool (S10, L4).
    DeadKeepTheirPermits,
    /// A taker does not look at what is lent already (S10).
    PermitsUnbounded,
    /// A move of permits without a clear answer counts as done (S10).
    PermitsAssumed,
    /// Calls start without a permit (S10).
    CallsWithoutPermits,
    /// Two readers may freeze the same part (S3).
    FrozenTwice,
    /// The cursor is written before the part, apart from it (L2, S3).
    CursorBeforePart,
    /// The router leaves out the last item of a part (L2).
    LastItemUnrouted,
    /// The router sends large items to the function lane (S9).
    SizeIgnored,
    /// A verdict does not wait for the total (S3, L1).
    VerdictBeforeTheEnd,
    /// Counts of before a redrive judge the run after it (S6, L5).
    VerdictOfOldCounts,
    /// The judge counts one slot of the tallies (L2).
    VerdictOfOneSlot,
    /// One failure more than tolerated is tolerated (S6).
    ToleranceOffByOne,
    /// As many failures as are tolerated end the run (S6).
    BreachAtEquality,
    /// A retry is not charged to its rule (S11, L2).
    RetriesUncharged,
    /// A redrive reopens the first page of a part only (L5).
    RedriveStopsEarly,
    /// What is reopened is not counted as reopened (S3).
    RedriveSkipsUncounted,
    /// A redrive takes items that succeeded (S7, L5).
    RedriveReopensSuccesses,
    /// A verdict does not wait for a redrive to reach its end (L5, S6).
    VerdictDuringRedrive,
    /// A change of the run does not look whether it changed meanwhile (S3, S6).
    RunChangesUnchained,
    /// Outcomes are settled although their outputs could not be written (S2).
    OutputsForgotten,
    /// Result files do not wait for sessions that still settle (S2).
    CompiledWhileHeld,
    /// Items run on their objects as they are now, unasked (S8).
    RefreshUnasked,
    /// A sweep follows the other at once (L6).
    SweepsWithoutPause,
    /// Every beat carries as much text as a job file may have (L7).
    BeatsCarryTheJob,
    /// A mark is written whatever is there: a duplicate is taken twice (S1).
    MarksUnconditional,
    /// An event that came after a later one of its key is taken (E1).
    LateTaken,
    /// What a listing showed is taken by its time, though its event was taken meanwhile (S12).
    ListedAsNews,
    /// A mark of an intake that never became ready counts as taken in (E1).
    DuplicatesTrusted,
    /// What an intake marked is passed on while it may yet become ready (E1).
    IntakesNotVoided,
    /// Messages are deleted before what they told is ready (S5).
    DeletedBeforeReady,
    /// An intake becomes ready in a window that is sealed (S3).
    SealOverlooked,
    /// A window's total is what was taken in before it was sealed (S3).
    SealedTooEarly,
    /// An intake counts one item less than it takes in (S3).
    TakenUncounted,
    /// Two intakes may use the same part number (S3).
    PartsUnnumbered,
    /// Both lanes of a session write output parts of the same names (S2).
    OutputsOverwritten,
    /// Evidence is written over a later holder's (S5).
    FormersWordStands,
    /// Sweeps do not look at runs that stopped: a lease of before a pause stays (L2).
    StoppedRunsUnvisited,
    /// A redriver goes on after its session ended, and reopens for a redrive that is over (L5).
    RedriversOfBefore,
    /// Dead sessions are forgotten at once, and who gives permits back may take some by it (L2, S10).
    DeadForgottenAtOnce,
    /// A sweep reads a straggler without what its items escalated to (L2).
    StragglersAlone,
    /// A suspect page waits for permits behind one that has none (L2).
    SuspectsWaitInLine,
    /// A redriver looks at a part's pages once (L2).
    PartsReopenedAtOneLook,
    /// What of a page is reopened is chosen once, however long it is held (L5).
    ReopenedByTheFirstLook,
    /// The finalizer leaves a page to its slow holder (S2).
    HeldBeyondPatience,
    /// Who asked for permits in vain remembers what was read, and others' late request stays (L2).
    VainPermitsKnown,
    /// What was asked for in vain may be lent later (L2).
    VainPermitsUnfenced,
    /// A sweep that hung is followed by a pause twenty times as long (L2).
    HungSweepsPauseLong,
    /// A settle in two transactions repeats the one that was answered (L6).
    SettledIsAskedAgain,
    /// A page taken from one who lives is ready before its retries are due (S4).
    TakenBeforeItsRetry,
    /// Result files leave out items of a part whose pages were made in part (S2).
    HalfMadePartsLost,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 67] = [
        Self::UnfencedWrites,
        Self::LeaseKeepsEpoch,
        Self::PagesMadeTwice,
        Self::TallyApart,
        Self::TallyRepeated,
        Self::TallyForgotten,
        Self::TallyOfFirstGeneration,
        Self::FailureTalliedAsSuccess,
        Self::EscalationUnwritten,
        Self::EscalationCounted,
        Self::LostHintsStayLost,
        Self::RetriesNeverDue,
        Self::DeadKeepTheirPages,
        Self::TakeOverForgets,
        Self::TakeOverNotRecorded,
        Self::LowWaterTooHigh,
        Self::LastShardUnswept,
        Self::DeadKeepTheirPermits,
        Self::PermitsUnbounded,
        Self::PermitsAssumed,
        Self::CallsWithoutPermits,
        Self::FrozenTwice,
        Self::CursorBeforePart,
        Self::LastItemUnrouted,
        Self::SizeIgnored,
        Self::VerdictBeforeTheEnd,
        Self::VerdictOfOldCounts,
        Self::VerdictOfOneSlot,
        Self::ToleranceOffByOne,
        Self::BreachAtEquality,
        Self::RetriesUncharged,
        Self::RedriveStopsEarly,
        Self::RedriveSkipsUncounted,
        Self::RedriveReopensSuccesses,
        Self::VerdictDuringRedrive,
        Self::RunChangesUnchained,
        Self::OutputsForgotten,
        Self::CompiledWhileHeld,
        Self::RefreshUnasked,
        Self::SweepsWithoutPause,
        Self::BeatsCarryTheJob,
        Self::MarksUnconditional,
        Self::LateTaken,
        Self::ListedAsNews,
        Self::DuplicatesTrusted,
        Self::IntakesNotVoided,
        Self::DeletedBeforeReady,
        Self::SealOverlooked,
        Self::SealedTooEarly,
        Self::TakenUncounted,
        Self::PartsUnnumbered,
        Self::OutputsOverwritten,
        Self::FormersWordStands,
        Self::StoppedRunsUnvisited,
        Self::RedriversOfBefore,
        Self::DeadForgottenAtOnce,
        Self::StragglersAlone,
        Self::SuspectsWaitInLine,
        Self::PartsReopenedAtOneLook,
        Self::ReopenedByTheFirstLook,
        Self::HeldBeyondPatience,
        Self::VainPermitsKnown,
        Self::VainPermitsUnfenced,
        Self::HungSweepsPauseLong,
        Self::SettledIsAskedAgain,
        Self::TakenBeforeItsRetry,
        Self::HalfMadePartsLost,
    ];

    /// Those that the pipeline once had and chance meets too seldom: each has a kept scenario that finds it.
    pub const RARE: [Self; 15] = [
        Self::FormersWordStands,
        Self::StoppedRunsUnvisited,
        Self::RedriversOfBefore,
        Self::DeadForgottenAtOnce,
        Self::StragglersAlone,
        Self::SuspectsWaitInLine,
        Self::PartsReopenedAtOneLook,
        Self::ReopenedByTheFirstLook,
        Self::HeldBeyondPatience,
        Self::VainPermitsKnown,
        Self::VainPermitsUnfenced,
        Self::HungSweepsPauseLong,
        Self::SettledIsAskedAgain,
        Self::TakenBeforeItsRetry,
        Self::HalfMadePartsLost,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnfencedWrites => "unfenced-writes",
            Self::LeaseKeepsEpoch => "lease-keeps-epoch",
            Self::PagesMadeTwice => "pages-made-twice",
            Self::TallyApart => "tally-apart",
            Self::TallyRepeated => "tally-repeated",
            Self::TallyForgotten => "tally-forgotten",
            Self::TallyOfFirstGeneration => "tally-of-first-generation",
            Self::FailureTalliedAsSuccess => "failure-tallied-as-success",
            Self::EscalationUnwritten => "escalation-unwritten",
            Self::EscalationCounted => "escalation-counted",
            Self::LostHintsStayLost => "lost-hints-stay-lost",
            Self::RetriesNeverDue => "retries-never-due",
            Self::DeadKeepTheirPages => "dead-keep-their-pages",
            Self::TakeOverForgets => "take-over-forgets",
            Self::TakeOverNotRecorded => "take-over-not-recorded",
            Self::LowWaterTooHigh => "low-water-too-high",
            Self::LastShardUnswept => "last-shard-unswept",
            Self::DeadKeepTheirPermits => "dead-keep-their-permits",
            Self::PermitsUnbounded => "permits-unbounded",
            Self::PermitsAssumed => "permits-assumed",
            Self::CallsWithoutPermits => "calls-without-permits",
            Self::FrozenTwice => "frozen-twice",
            Self::CursorBeforePart => "cursor-before-part",
            Self::LastItemUnrouted => "last-item-unrouted",
            Self::SizeIgnored => "size-ignored",
            Self::VerdictBeforeTheEnd => "verdict-before-the-end",
            Self::VerdictOfOldCounts => "verdict-of-old-counts",
            Self::VerdictOfOneSlot => "verdict-of-one-slot",
            Self::ToleranceOffByOne => "tolerance-off-by-one",
            Self::BreachAtEquality => "breach-at-equality",
            Self::RetriesUncharged => "retries-uncharged",
            Self::RedriveStopsEarly => "redrive-stops-early",
            Self::RedriveSkipsUncounted => "redrive-skips-uncounted",
            Self::RedriveReopensSuccesses => "redrive-reopens-successes",
            Self::VerdictDuringRedrive => "verdict-during-redrive",
            Self::RunChangesUnchained => "run-changes-unchained",
            Self::SweepsWithoutPause => "sweeps-without-pause",
            Self::RefreshUnasked => "refresh-unasked",
            Self::CompiledWhileHeld => "compiled-while-held",
            Self::OutputsForgotten => "outputs-forgotten",
            Self::BeatsCarryTheJob => "beats-carry-the-job",
            Self::MarksUnconditional => "marks-unconditional",
            Self::LateTaken => "late-taken",
            Self::ListedAsNews => "listed-as-news",
            Self::DuplicatesTrusted => "duplicates-trusted",
            Self::IntakesNotVoided => "intakes-not-voided",
            Self::DeletedBeforeReady => "deleted-before-ready",
            Self::SealOverlooked => "seal-overlooked",
            Self::SealedTooEarly => "sealed-too-early",
            Self::TakenUncounted => "taken-uncounted",
            Self::PartsUnnumbered => "parts-unnumbered",
            Self::OutputsOverwritten => "outputs-overwritten",
            Self::FormersWordStands => "formers-word-stands",
            Self::StoppedRunsUnvisited => "stopped-runs-unvisited",
            Self::RedriversOfBefore => "redrivers-of-before",
            Self::DeadForgottenAtOnce => "dead-forgotten-at-once",
            Self::StragglersAlone => "stragglers-alone",
            Self::SuspectsWaitInLine => "suspects-wait-in-line",
            Self::PartsReopenedAtOneLook => "parts-reopened-at-one-look",
            Self::ReopenedByTheFirstLook => "reopened-by-the-first-look",
            Self::HeldBeyondPatience => "held-beyond-patience",
            Self::VainPermitsKnown => "vain-permits-known",
            Self::VainPermitsUnfenced => "vain-permits-unfenced",
            Self::HungSweepsPauseLong => "hung-sweeps-pause-long",
            Self::SettledIsAskedAgain => "settled-is-asked-again",
            Self::TakenBeforeItsRetry => "taken-before-its-retry",
            Self::HalfMadePartsLost => "half-made-parts-lost",
        }
    }

    /// Whether a search is not expected to find it.
    pub fn is_rare(self) -> bool {
        Self::RARE.contains(&self)
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread has this mistake and no other.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread has this mistake.
#[cfg(feature = "planted")]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// No.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_found_by_its_name() {
        for bug in Bug::ALL {
            assert_eq!(Bug::parse(bug.name()), Some(bug));
        }
        assert_eq!(Bug::parse("none"), None);
    }

    #[test]
    fn nothing_is_planted_unasked() {
        assert!(Bug::ALL.into_iter().all(|bug| !is_planted(bug)));
    }
}
