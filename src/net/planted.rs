//! Bugs planted on purpose, to see that the tests would catch them: `make planted`.
//!
//! Code with a planted bug reads `if planted(Bug::X) { wrong } else { right }`. [`planted`] is the constant `false` unless
//! the feature `planted-bugs` is on, which no build that is used has; then each thread may `plant` one bug.

/// A bug, named for what goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Bug {
    CreditLost,
    CreditReturnedTwice,
    CreditKeptBack,
    GrantsWithoutEnd,
    WantedKept,
    AnnouncementToDepartedDropped,
    GrantSentTwice,
    GrantToAnotherRank,
    GrantedRoomForgotten,
    LocalRoomIgnored,
    WantedSourceIgnored,
    WantedTagIgnored,
    TakenSourceIgnored,
    MessagesReversed,
    FinishedRankGrantsNobody,
    QueueDropsByteAtCut,
    QueueReordersFrames,
    HeldNeverReleased,
    HeldReleasedEarly,
    RemovalKeepsHolds,
    RemovalKeepsTotal,
    TotalHoldsForEver,
    AnnouncementForgottenOnLeave,
    AnnouncementKeptAfterGrant,
    GrantForDepartedToItself,
    EpochUnchecked,
    SourceUnchecked,
    DestinationUnchecked,
    DepartedMisrouted,
    LostPackKept,
    SourcesMixed,
    SequenceUnchecked,
    ChecksumUnchecked,
    TotalUnchecked,
    ChecksumOfLastChunk,
}

/// True if this bug is planted, on this thread.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub use chosen::{plant, planted};

#[cfg(feature = "planted-bugs")]
mod chosen {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// True if this bug is planted, on this thread.
    pub fn planted(bug: Bug) -> bool {
        CHOSEN.get() == Some(bug)
    }

    /// Plants a bug on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::CreditLost,
        Bug::CreditReturnedTwice,
        Bug::CreditKeptBack,
        Bug::GrantsWithoutEnd,
        Bug::WantedKept,
        Bug::AnnouncementToDepartedDropped,
        Bug::GrantSentTwice,
        Bug::GrantToAnotherRank,
        Bug::GrantedRoomForgotten,
        Bug::LocalRoomIgnored,
        Bug::WantedSourceIgnored,
        Bug::WantedTagIgnored,
        Bug::TakenSourceIgnored,
        Bug::MessagesReversed,
        Bug::FinishedRankGrantsNobody,
        Bug::QueueDropsByteAtCut,
        Bug::QueueReordersFrames,
        Bug::HeldNeverReleased,
        Bug::HeldReleasedEarly,
        Bug::RemovalKeepsHolds,
        Bug::RemovalKeepsTotal,
        Bug::TotalHoldsForEver,
        Bug::AnnouncementForgottenOnLeave,
        Bug::AnnouncementKeptAfterGrant,
        Bug::GrantForDepartedToItself,
        Bug::EpochUnchecked,
        Bug::SourceUnchecked,
        Bug::DestinationUnchecked,
        Bug::DepartedMisrouted,
        Bug::LostPackKept,
        Bug::SourcesMixed,
        Bug::SequenceUnchecked,
        Bug::ChecksumUnchecked,
        Bug::TotalUnchecked,
        Bug::ChecksumOfLastChunk,
    ];
}
