//! What Hythe talks about: identifiers, names, states and the rules between them.
//!
//! Always holds: nothing here does I/O, knows a clock or allocates a task. A state is an exhaustive
//! enum; a rule about it is a named method here, repeated as a CHECK in the database where a row
//! could break it.
//!
//! Deliberately absent: how anything is stored (`store`), sent (`api-types`, `agent-api`) or run.

mod deployment;
mod domain;
mod host_name;
mod id;
mod machine;
mod name;
mod old_label;

pub use deployment::{
    Fence, Health, MAX_IDLE_SECONDS, MIN_IDLE_SECONDS, OperationKind, Phase, Scheme, Seen, Service,
    StopReason, UnknownValue, WakePolicy, Wanted,
};
pub use domain::{Domain, DomainError, MAX_HOST};
pub use host_name::{HostLabel, HostName, HostNameError, HostTarget, NameRef, ServiceSelector, host_labels};
pub use id::{
    AdapterId, AgentId, DeploymentId, ExecutionId, IdError, MachineId, OrganizationId, ProjectId, TypedId,
    UserId,
};
pub use machine::{MachineHolder, MachineStatus};
pub use name::{MAX_LABEL, NameError, RuntimeType, ServiceName, Slug};
pub use old_label::{DomainPrefix, OldLabel, OldName, old_service_port};
