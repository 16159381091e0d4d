//! What to do next for one deployment: (wanted, seen, clock) → one action.
//!
//! Always holds: [`plan`] is a pure function; it decides and never carries out. Called again with the
//! same snapshot it decides the same. An operation that was begun is continued under its own number
//! until it ends or what is wanted changes, whichever host does it. An incarnation is begun once: what
//! failed or vanished comes back as the next incarnation. *Unknown* is not here: it changes no snapshot.
//!
//! Deliberately absent: leases, rows, adapters, retries of a single call.

mod policy;
mod snapshot;

pub use policy::Policy;
pub use snapshot::{CurrentOperation, Snapshot};

use model::{Health, OperationKind, Seen, Wanted};

/// The one next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Call the adapter for this operation.
    Operate {
        kind: OperationKind,
        /// The incarnation that the operation brings about, or ends.
        incarnation: u64,
        /// False: under the number of the operation that is under way.
        new_operation: bool,
    },
    /// Count the wanted incarnation up by one, then plan again: this one has ended by itself.
    BeginNextIncarnation,
    /// Ask the adapter how it is.
    Inspect,
    /// Ask whether it answers as it should.
    CheckHealth,
    /// Nothing until then.
    Wait {
        /// Milliseconds from now; none: until something changes.
        for_ms: Option<u64>,
    },
}

/// Decides. `now_ms` is Unix time in milliseconds, on the clock of the snapshot's times.
#[must_use]
pub fn plan(snapshot: &Snapshot, now_ms: u64, policy: &Policy) -> Action {
    match snapshot.wanted {
        Wanted::Destroyed => match snapshot.seen {
            Seen::Destroyed => Action::Wait { for_ms: None },
            _ => operate(snapshot, OperationKind::Destroy, snapshot.seen_incarnation),
        },
        Wanted::Stopped => match snapshot.seen {
            // What was begun and not seen to end may have reached the runtime.
            Seen::Created | Seen::Stopped if snapshot.operation.is_none() => Action::Wait { for_ms: None },
            Seen::Destroyed => Action::Wait { for_ms: None },
            Seen::Running if snapshot.operation.is_none() && before_stop(snapshot, now_ms) > 0 => {
                Action::Wait { for_ms: Some(before_stop(snapshot, now_ms)) }
            }
            _ => operate(snapshot, OperationKind::Stop, snapshot.seen_incarnation),
        },
        Wanted::Running => plan_running(snapshot, now_ms, policy),
    }
}

fn plan_running(snapshot: &Snapshot, now_ms: u64, policy: &Policy) -> Action {
    let wanted = snapshot.wanted_incarnation;
    let is_current = snapshot.seen_incarnation == wanted;
    match snapshot.seen {
        Seen::Destroyed => Action::Wait { for_ms: None },
        // An operation whose end was not seen: what it may have begun makes room.
        Seen::Created | Seen::Stopped if another_under_way(snapshot) => {
            operate(snapshot, OperationKind::Restart, wanted)
        }
        // Nothing runs, and this incarnation has not begun.
        Seen::Created => operate(snapshot, OperationKind::Start, wanted),
        Seen::Stopped if !is_current => operate(snapshot, OperationKind::Start, wanted),
        // It runs, or may: an earlier incarnation makes room for the wanted one.
        Seen::Starting | Seen::Running | Seen::Stopping | Seen::Failed if !is_current => {
            operate(snapshot, OperationKind::Restart, wanted)
        }
        // The operation that began it ends it: a restart keeps its own number and key.
        Seen::Starting => operate(snapshot, begun_by(snapshot), wanted),
        Seen::Running => watch(snapshot, now_ms, policy),
        Seen::Stopped | Seen::Failed if snapshot.is_refused => Action::Wait { for_ms: None },
        // What was told to stop, or ended by itself, does not come back as the same incarnation.
        Seen::Stopping => operate(snapshot, OperationKind::Stop, wanted),
        Seen::Stopped | Seen::Failed => {
            match remaining(snapshot.seen_at_ms, policy.backoff_ms(snapshot.failures), now_ms) {
                0 => Action::BeginNextIncarnation,
                rest => Action::Wait { for_ms: Some(rest) },
            }
        }
    }
}

/// A running deployment of the wanted incarnation: look after it.
fn watch(snapshot: &Snapshot, now_ms: u64, policy: &Policy) -> Action {
    let inspect_in = remaining(snapshot.seen_at_ms, policy.inspect_every_ms, now_ms);
    let health_every =
        if snapshot.health == Health::Healthy { policy.health_every_ms } else { policy.health_retry_ms };
    let health_in = remaining(snapshot.health_at_ms, health_every, now_ms);
    match (inspect_in, health_in) {
        (0, _) => Action::Inspect,
        (_, 0) => Action::CheckHealth,
        (inspect, health) => Action::Wait { for_ms: Some(inspect.min(health)) },
    }
}

/// Milliseconds until it may be stopped.
fn before_stop(snapshot: &Snapshot, now_ms: u64) -> u64 {
    snapshot.stop_after_ms.unwrap_or(0).saturating_sub(now_ms)
}

/// The operation under way where it is the same one, else a new one.
fn operate(snapshot: &Snapshot, kind: OperationKind, incarnation: u64) -> Action {
    let same = |operation: &CurrentOperation| {
        operation.kind == kind
            && operation.incarnation == incarnation
            && operation.generation == snapshot.generation
    };
    Action::Operate { kind, incarnation, new_operation: !snapshot.operation.as_ref().is_some_and(same) }
}

fn begun_by(snapshot: &Snapshot) -> OperationKind {
    match &snapshot.operation {
        Some(operation) if operation.kind == OperationKind::Restart => OperationKind::Restart,
        _ => OperationKind::Start,
    }
}

/// Whether something other than the start of the wanted incarnation was begun and not seen to end.
fn another_under_way(snapshot: &Snapshot) -> bool {
    snapshot.operation.as_ref().is_some_and(|operation| {
        (operation.kind, operation.incarnation) != (OperationKind::Start, snapshot.wanted_incarnation)
    })
}

/// Milliseconds until `every` has passed since `last`; 0 where it has, or there was no last time.
fn remaining(last_ms: Option<u64>, every_ms: u64, now_ms: u64) -> u64 {
    last_ms.map_or(0, |last| last.saturating_add(every_ms).saturating_sub(now_ms))
}
