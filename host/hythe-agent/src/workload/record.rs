//! What the daemon durably knows of one workload, and the rules of the fence.

use agent_api::{Exit, ServicePort, WorkloadPhase, WorkloadSpec, WorkloadStatus};
use model::{DeploymentId, Fence};
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::problem::Refusal;
use crate::users::UserId;

/// What the last accepted operation wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    Running,
    Stopped,
    Destroyed,
}

/// A run that was, or was about to be, started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    pub run: u64,
    pub incarnation: u64,
    pub at_ms: u64,
}

/// State of one workload. On disk before anything is done because of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub deployment: DeploymentId,
    pub generation: u64,
    pub incarnation: u64,
    /// The highest operation seen. Lower ones are refused.
    pub operation: u64,
    pub wanted: Wanted,
    pub phase: WorkloadPhase,
    pub detail: Option<String>,
    pub since_ms: u64,
    /// The highest incarnation whose start was accepted. It is never started again.
    pub started: Option<u64>,
    pub spec: WorkloadSpec,
    pub services: Vec<ServicePort>,
    pub user: Option<UserId>,
    /// Digest of what lies unpacked in the workload's folder; empty where it has no source.
    pub unpacked: Option<String>,
    /// None: nothing runs, and nothing is to be accounted for.
    pub launched: Option<Launch>,
    pub runs: u64,
    /// Supervised restarts of this incarnation.
    pub attempts: u32,
    /// Of those, the ones in a row.
    pub streak: u32,
    pub last_exit: Option<Exit>,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
    /// What of the limits is not kept here.
    pub notes: Vec<String>,
}

/// Where nobody said otherwise.
pub const DEFAULT_GRACE_MS: u64 = 10_000;

impl Record {
    /// Nothing was ever said about it.
    pub fn unseen(deployment: DeploymentId) -> Self {
        Self {
            deployment,
            generation: 0,
            incarnation: 0,
            operation: 0,
            wanted: Wanted::Stopped,
            phase: WorkloadPhase::Stopped,
            detail: None,
            since_ms: 0,
            started: None,
            spec: WorkloadSpec::default(),
            services: Vec::new(),
            user: None,
            unpacked: None,
            launched: None,
            runs: 0,
            attempts: 0,
            streak: 0,
            last_exit: None,
            grace_ms: DEFAULT_GRACE_MS,
            notes: Vec::new(),
        }
    }

    /// Whether nothing was ever said about it.
    pub fn is_unseen(&self) -> bool {
        self.since_ms == 0
    }

    /// Whether it is gone, and only the fence is kept.
    pub fn is_tombstone(&self) -> bool {
        self.phase == WorkloadPhase::Destroyed
    }

    /// Accepts the operation, or refuses one that came too late.
    pub fn accept(&mut self, fence: &Fence) -> Result<(), Refusal> {
        if !self.is_unseen() && fence.operation < self.operation {
            return Err(Refusal::superseded(format!(
                "operation {} on {} comes too late: this machine has seen operation {}; nothing was done",
                fence.operation, self.deployment, self.operation
            )));
        }
        self.operation = fence.operation;
        self.generation = self.generation.max(fence.generation);
        // That of what runs or ran: a stop on the way to the next incarnation is about the present one.
        if self.is_unseen() {
            self.incarnation = fence.incarnation;
            self.since_ms = now_ms();
        }
        Ok(())
    }

    /// Goes into a phase, with a sentence for a person.
    pub fn enter(&mut self, phase: WorkloadPhase, detail: Option<String>) {
        if self.phase != phase {
            self.phase = phase;
            self.since_ms = now_ms();
        }
        self.detail = detail;
    }

    /// When a start that is under way has failed, Unix time in milliseconds.
    pub fn start_deadline_ms(&self) -> u64 {
        self.since_ms.saturating_add(self.spec.start_timeout_ms)
    }

    /// What the world is told.
    pub fn status(&self, pid: Option<u32>) -> WorkloadStatus {
        WorkloadStatus {
            deployment: self.deployment.to_string(),
            generation: self.generation,
            incarnation: self.incarnation,
            operation: self.operation,
            phase: self.phase,
            detail: self.detail.clone(),
            attempts: self.attempts,
            pid,
            last_exit: self.last_exit.clone(),
            since_ms: self.since_ms,
            services: self.services.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(operation: u64) -> Fence {
        Fence {
            deployment: DeploymentId::from_suffix("01h455vb4pex5vsknk084sn02q").unwrap(),
            generation: 1,
            incarnation: 1,
            operation,
        }
    }

    #[test]
    fn a_lower_operation_is_refused_and_changes_nothing() {
        let mut record = Record::unseen(fence(0).deployment);
        record.accept(&fence(5)).unwrap();
        record.accept(&fence(5)).unwrap();
        let before = record.clone();
        let refusal = record.accept(&fence(4)).unwrap_err();
        assert_eq!(refusal.code, agent_api::error_code::SUPERSEDED);
        assert_eq!(record, before);
    }
}
