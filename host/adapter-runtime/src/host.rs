//! What the host gives to one call of an adapter.

use async_trait::async_trait;
use model::{DeploymentId, ProjectId, Service};

use crate::error::HostError;
use crate::types::{Request, Response};

/// The deployment that a call is about, as it was when the call began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentView {
    pub id: DeploymentId,
    pub project_id: ProjectId,
    /// Counts starts.
    pub incarnation: u64,
    /// JSON text, valid under the adapter's schema.
    pub spec: String,
    /// The first is the default.
    pub services: Vec<Service>,
    /// Digest of the uploaded archive, lower-case hex SHA-256.
    pub source: Option<String>,
    /// The same for every try of this operation.
    pub idempotency_key: String,
}

/// A machine that the deployment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRef {
    /// `mach_…`
    pub id: String,
    pub name: String,
}

/// What a machine must have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requirements {
    pub machine_type: Option<String>,
    pub min_cpu_count: Option<u32>,
    pub min_memory_gb: Option<u32>,
    /// All of them must be on the machine.
    pub labels: Vec<(String, String)>,
}

/// How loud a line of an adapter's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// What an adapter reaches in one call. An error here is an answer to the guest, which may go on; it
/// never ends the call.
///
/// Calls on one of these come one after the other. A method's future may be dropped at any await, when
/// the call's time is over.
#[async_trait]
pub trait DeploymentHost: Send + Sync {
    /// The deployment. The same for the whole call.
    fn view(&self) -> &DeploymentView;

    /// What the adapter wrote last; what this call wrote, where it did.
    fn locator(&self) -> Option<String>;

    /// Durable when it returns. At most 4,096 bytes, checked before.
    async fn set_locator(&self, locator: Option<String>) -> Result<(), HostError>;

    /// The machine that the deployment holds. Not to know is an error, never none: on none an adapter
    /// takes what ran there for gone.
    async fn held_machine(&self) -> Result<Option<MachineRef>, HostError>;

    /// The one already held, or one claimed now.
    async fn acquire_machine(&self, want: Requirements) -> Result<MachineRef, HostError>;

    /// Nothing held: done already.
    async fn release_machine(&self) -> Result<(), HostError>;

    /// To the daemon of a machine that an earlier answer of this host named. The request's time-out is
    /// always set and within the call's own time.
    async fn send_machine(&self, machine_id: &str, request: Request) -> Result<Response, HostError>;

    /// To a place granted by name. As `send_machine`.
    async fn send_grant(&self, grant: &str, request: Request) -> Result<Response, HostError>;

    /// To the deployment's event log. `data` is valid JSON of at most 16 KiB.
    fn event(&self, name: &str, data: &str);

    /// A line of the adapter's log.
    fn log(&self, level: Level, message: &str, fields: &[(String, String)]);
}
