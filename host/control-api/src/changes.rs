//! Waiting for changes of the database without asking it again and again.

use std::time::Duration;

use store::Change;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::api::ControlApi;

/// A change's notice is a hint that may be lost with its connection: look anyway after so long.
const LOOK_ANYWAY: Duration = Duration::from_secs(15);
/// After the database could not be asked.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Sees all changes from its making on.
pub(crate) struct Watch {
    changes: broadcast::Receiver<Change>,
    shutdown: CancellationToken,
}

/// Why a watcher woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Look: it may have changed.
    Changed,
    /// The host is going: end.
    Shutdown,
}

impl Watch {
    pub(crate) fn new(api: &ControlApi) -> Self {
        Self { changes: api.changes.subscribe(), shutdown: api.shutdown.clone() }
    }

    /// Until a change that concerns the caller, or until any may have been missed.
    pub(crate) async fn changed(&mut self, concerns: impl Fn(&Change) -> bool) -> Woken {
        let look_anyway = tokio::time::sleep(LOOK_ANYWAY);
        let relevant = async {
            loop {
                match self.changes.recv().await {
                    Ok(Change::Resync) | Err(RecvError::Lagged(_)) => return,
                    Ok(change) if concerns(&change) => return,
                    Ok(_) => {}
                    // Nobody tells any more: only the slow look is left.
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Woken::Shutdown,
            () = relevant => Woken::Changed,
            () = look_anyway => Woken::Changed,
        }
    }

    /// After the database could not be asked.
    pub(crate) async fn pause(&self) -> Woken {
        tokio::select! {
            () = self.shutdown.cancelled() => Woken::Shutdown,
            () = tokio::time::sleep(PAUSE) => Woken::Changed,
        }
    }
}
