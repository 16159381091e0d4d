//! What the control API (`/v1`) and its clients say to each other: request and response bodies,
//! query parameters, problems.
//!
//! Always holds: JSON names are camelCase; a request with an unknown field is refused, so that a
//! misspelt option is never silently ignored, while an answer may gain fields; times are RFC 3339 in UTC;
//! ids are TypeIDs (`dep_…`); nothing here holds a key of a machine.
//!
//! Deliberately absent: how anything is served or fetched (`control-api`, `cli`), and the daemon's own
//! protocol (`agent-api`), from which only what a machine sends to register is taken as it is.

mod adapter;
mod deployment;
mod domain;
mod event;
mod exec;
mod hostname;
mod machine;
mod page;
mod problem;
mod project;
pub mod schema;
mod service_health;
mod source;

pub use adapter::{Adapter, Grant};
pub use agent_api::{Exit, LogLine, MachineFacts, RegistrationRequest, RegistrationResponse};
pub use deployment::{
    CreateDeployment, DeleteQuery, Deployment, DeploymentFilter, HealthReport, HostKind, Operation,
    OperationKind, Service, ServiceUrl, WaitOutcome, WaitQuery, WaitResult, WaitState,
};
pub use domain::{AddDomain, Domain};
pub use event::{Event, EventQuery};
pub use exec::{AttachQuery, Encoding, ExecFrame, ExecRequest, ExecResult, LogsQuery};
pub use hostname::{Hostname, PutHostname};
pub use machine::{CreateRegistration, Machine, MachineFilter, Registration};
pub use page::{DEFAULT_LIMIT, ListQuery, MAX_LIMIT, Page};
pub use problem::{FieldError, Problem, code};
pub use project::{CreateProject, Project};
pub use service_health::{ServiceHealth, ServiceStatus};
pub use source::Source;

/// Media type of [`Problem`] (RFC 9457, section 3).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Media type of a stream of JSON values, one a line.
pub const NDJSON: &str = "application/x-ndjson";
/// Media type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Request header of creating calls: repeating one with the same key creates nothing a second time.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Answer header: `true` where the answer is that of an earlier call with the same key.
pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
/// Answer header: what to quote when asking for help. Also in each problem.
pub const REQUEST_ID: &str = "x-request-id";
