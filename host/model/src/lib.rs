//! What Hythe talks about: identifiers, names, states and the rules between them.
//!
//! Always holds: nothing here does I/O, knows a clock or allocates a task. A state is an exhaustive
//! enum; a rule about it is a named method here, repeated as a CHECK in the database where a row
//! could break it.
//!
//! Deliberately absent: how anything is stored (`store`), sent (`api-types`, `agent-api`) or run.

mod deployment;
mod host_name;
mod id;
mod machine;
mod name;

pub use deployment::{
    Fence, Health, OperationKind, Phase, Scheme, Seen, Service, UnknownValue, WakePolicy, Wanted,
};
pub use host_name::{HostName, HostNameError, HostTarget, ServiceSelector, host_labels};
pub use id::{
    AdapterId, AgentId, DeploymentId, ExecutionId, IdError, MachineId, OrganizationId, ProjectId, TypedId,
    UserId,
};
pub use machine::{MachineHolder, MachineStatus};
pub use name::{MAX_LABEL, NameError, RuntimeType, ServiceName, Slug};
