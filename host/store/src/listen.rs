//! Changes as they happen: LISTEN/NOTIFY with a full resync behind it.
//!
//! Always holds: a listener never ends by itself and never fails; where it may have missed something, it
//! yields [`Change::Resync`]. A notification is a hint: read the row.

use model::{DeploymentId, MachineId, ProjectId};

use crate::error::StoreError;
use crate::store::Store;

/// What one may listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    Projects,
    Deployments,
    Machines,
    Events,
    Hostnames,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Projects(ProjectId),
    /// What is wanted, seen, or its health.
    Deployments(DeploymentId),
    Machines(MachineId),
    /// There is an event of this number.
    Events(i64),
    Hostnames,
    /// Anything may have changed: read all. Always the first, and again after each reconnection.
    Resync,
}

/// Yields changes. Has a connection of its own.
pub struct ChangeListener {
    _todo: (),
}

impl Store {
    /// Listens from now on; the first change is [`Change::Resync`]. Returns at once, connected or not.
    ///
    /// # Errors
    /// None at present.
    pub async fn listen(&self, channels: &[Channel]) -> Result<ChangeListener, StoreError> {
        let _ = channels;
        todo!()
    }
}

impl ChangeListener {
    /// Waits for the next change. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Change {
        todo!()
    }
}
