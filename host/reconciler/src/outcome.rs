//! What an adapter's answer means for the row. Pure.

use std::time::Duration;

use adapter_runtime::{CallCause, CallError, DeploymentError, Status};
use model::{OperationKind, Phase, Seen};

/// What to write down after one call of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The adapter said where the deployment is.
    Seen {
        seen: Seen,
        detail: Option<String>,
        /// The operation is over.
        finished: bool,
        /// The incarnation did not come up.
        failed: bool,
        /// The adapter's own wish for the next look.
        poll_after: Option<Duration>,
    },
    /// Nothing was learnt: what was known stays.
    Unknown { error: String, retry_after: Duration },
    /// The specification can't be run: failed, and not tried again until it changes.
    Refused { error: String },
}

/// Pauses between tries of one operation.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Before asking again what only a person can change.
const HUMAN_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks at a passing state.
const POLL: Duration = Duration::from_millis(500);

/// Reads the answer to `start`, `stop`, `restart` or `destroy`. `tries` counts this one.
pub(crate) fn of_operation(kind: OperationKind, answer: Result<Status, CallError>, tries: u32) -> Outcome {
    match answer {
        Ok(status) => of_status(kind, status, tries),
        Err(error) => of_error(kind, &error, tries),
    }
}

fn of_status(kind: OperationKind, status: Status, tries: u32) -> Outcome {
    use OperationKind::{Destroy, Restart, Start, Stop};
    let seen = |seen, finished, failed| Outcome::Seen {
        seen,
        detail: status.detail.clone(),
        finished,
        failed,
        poll_after: status.poll_after,
    };
    match (kind, status.phase) {
        (Start | Restart, Phase::Running) => seen(Seen::Running, true, false),
        // What is still stopping is the earlier incarnation: this one is on its way.
        (Start | Restart, Phase::Starting | Phase::Stopping | Phase::Created) => {
            seen(Seen::Starting, false, false)
        }
        // It was begun and has ended: it is not begun again.
        (Start | Restart, Phase::Failed | Phase::Destroyed) => seen(Seen::Failed, true, true),
        (Start | Restart, Phase::Stopped) => seen(Seen::Stopped, true, true),
        (Stop, Phase::Stopped | Phase::Created | Phase::Failed | Phase::Destroyed) => {
            seen(Seen::Stopped, true, false)
        }
        (Stop | Destroy, Phase::Stopping) => seen(Seen::Stopping, false, false),
        (Destroy, Phase::Destroyed) => seen(Seen::Destroyed, true, false),
        (Stop, Phase::Starting | Phase::Running) => Outcome::Unknown {
            error: format!("asked to stop, the runtime says `{}`", status.phase),
            retry_after: pause(tries),
        },
        (Destroy, Phase::Starting | Phase::Running | Phase::Stopped | Phase::Created | Phase::Failed) => {
            Outcome::Unknown {
                error: format!("asked to destroy, the runtime says `{}`", status.phase),
                retry_after: pause(tries),
            }
        }
        (_, Phase::Unknown) => Outcome::Unknown {
            error: status.detail.unwrap_or_else(|| "the runtime does not know how it is".to_owned()),
            retry_after: status.poll_after.unwrap_or_else(|| pause(tries)),
        },
    }
}

fn of_error(kind: OperationKind, error: &CallError, tries: u32) -> Outcome {
    use OperationKind::{Destroy, Restart, Start, Stop};
    let gone = |seen| Outcome::Seen { seen, detail: None, finished: true, failed: false, poll_after: None };
    let unknown = |retry_after| Outcome::Unknown { error: error.to_string(), retry_after };
    match (kind, &error.cause) {
        (Stop, CallCause::Adapter(DeploymentError::NotFound)) => gone(Seen::Stopped),
        (Destroy, CallCause::Adapter(DeploymentError::NotFound)) => gone(Seen::Destroyed),
        (
            Start | Restart,
            CallCause::Adapter(
                DeploymentError::Invalid(_) | DeploymentError::Other { .. } | DeploymentError::Unsupported,
            ),
        ) => Outcome::Refused { error: error.to_string() },
        (_, CallCause::Adapter(DeploymentError::Busy(after))) => unknown(*after),
        (_, CallCause::Adapter(DeploymentError::Denied(_) | DeploymentError::Superseded)) => {
            unknown(HUMAN_PAUSE)
        }
        _ => unknown(pause(tries)),
    }
}

/// How long until the next look at a passing state.
pub(crate) fn poll_pause(poll_after: Option<Duration>) -> Duration {
    poll_after.unwrap_or(POLL).clamp(Duration::from_millis(10), Duration::from_secs(60))
}

/// Doubles with each try, up to ten seconds.
pub(crate) fn pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: Phase) -> Result<Status, CallError> {
        Ok(Status { phase, detail: None, poll_after: None, extensions: Default::default() })
    }

    fn answered(error: DeploymentError) -> Result<Status, CallError> {
        Err(CallError { adapter: "a".to_owned(), function: "start", cause: CallCause::Adapter(error) })
    }

    #[test]
    fn unknown_is_never_a_state() {
        for kind in
            [OperationKind::Start, OperationKind::Stop, OperationKind::Restart, OperationKind::Destroy]
        {
            for answer in [
                status(Phase::Unknown),
                answered(DeploymentError::Unavailable("away".to_owned())),
                answered(DeploymentError::Superseded),
                Err(CallError {
                    adapter: "a".to_owned(),
                    function: "start",
                    cause: CallCause::Trap("x".to_owned()),
                }),
            ] {
                assert!(matches!(of_operation(kind, answer, 1), Outcome::Unknown { .. }));
            }
        }
    }

    #[test]
    fn only_destroy_ends_in_destroyed() {
        for kind in [OperationKind::Start, OperationKind::Stop, OperationKind::Restart] {
            for phase in Phase::ALL {
                let outcome = of_operation(kind, status(*phase), 1);
                assert!(!matches!(outcome, Outcome::Seen { seen: Seen::Destroyed, .. }), "{kind:?} {phase}");
            }
        }
        let gone = of_operation(OperationKind::Destroy, answered(DeploymentError::NotFound), 1);
        assert!(matches!(gone, Outcome::Seen { seen: Seen::Destroyed, finished: true, .. }));
    }

    #[test]
    fn a_specification_that_cannot_run_is_not_tried_again() {
        let refused =
            of_operation(OperationKind::Start, answered(DeploymentError::Invalid("no".to_owned())), 1);
        assert!(matches!(refused, Outcome::Refused { .. }));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(2), FIRST_PAUSE * 2);
        assert_eq!(pause(100), LONGEST_PAUSE);
    }
}
