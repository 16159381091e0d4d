//! All that a decision is made from.

use model::{Health, OperationKind, Seen, Wanted};

/// The operation under way: begun, and not known to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentOperation {
    pub kind: OperationKind,
    pub generation: u64,
    pub incarnation: u64,
}

/// One deployment, as its row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub wanted: Wanted,
    pub wanted_incarnation: u64,
    /// Counts changes of what is wanted.
    pub generation: u64,
    pub seen: Seen,
    pub seen_incarnation: u64,
    /// Unix milliseconds.
    pub seen_at_ms: Option<u64>,
    pub health: Health,
    /// Unix milliseconds.
    pub health_at_ms: Option<u64>,
    pub operation: Option<CurrentOperation>,
    /// Incarnations that failed in a row.
    pub failures: u32,
    /// Unix milliseconds: not stopped before, since what is on its way to it may call the stop off.
    pub stop_after_ms: Option<u64>,
    /// The adapter said that this specification can't be run: only a change of what is wanted helps.
    pub is_refused: bool,
}
