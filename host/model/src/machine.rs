//! Machines: statuses, transitions, and who may hold one.

use serde::{Deserialize, Serialize};

use crate::deployment::{UnknownValue, text_enum};
use crate::id::{AgentId, DeploymentId};

text_enum! {
    /// Where a machine is in its life. `retired` is the end: the row outlives the server.
    MachineStatus, "machine status" {
        Launching = "launching",
        Ready = "ready",
        InUse = "in_use",
        Offline = "offline",
        Retired = "retired",
    }
}

impl MachineStatus {
    /// Whether a machine may go from here to there. Staying is allowed.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use MachineStatus::{InUse, Launching, Offline, Ready, Retired};
        self == next
            || matches!(
                (self, next),
                (Launching, Ready | Offline | Retired)
                    | (Ready, InUse | Offline | Retired)
                    | (InUse, Ready | Offline | Retired)
                    | (Offline, Ready | InUse | Retired)
            )
    }

    /// Whether a deployment or agent may claim it.
    #[must_use]
    pub fn is_claimable(self) -> bool {
        self == Self::Ready
    }
}

/// Who holds a machine. At most one does; the database enforces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineHolder {
    Deployment(DeploymentId),
    Agent(AgentId),
}
