//! What the store takes and gives: rows, typed by `model`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use model::{
    AdapterId, DeploymentId, Domain, Fence, Health, MachineHolder, MachineId, MachineStatus, OperationKind,
    ProjectId, RuntimeType, Scheme, Seen, Service, Slug, StopReason, UserId, WakePolicy, Wanted,
};
use uuid::Uuid;

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub slug: Slug,
    /// What `<slug>.<base>` leads to.
    pub primary_deployment_id: Option<DeploymentId>,
    pub created_at: DateTime<Utc>,
}

/// What to deploy. Names, ports and the spec are checked by the caller; the store only refuses what would
/// break a row.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    pub project_id: ProjectId,
    pub runtime_type: RuntimeType,
    pub spec: serde_json::Value,
    /// The first is the default service.
    pub services: Vec<Service>,
    /// Lower-case hex; must be recorded.
    pub source_sha256: Option<String>,
    pub wake_policy: WakePolicy,
    /// [`model::MIN_IDLE_SECONDS`] to [`model::MAX_IDLE_SECONDS`]; none: never stopped for being idle.
    pub idle_timeout_seconds: Option<u32>,
    /// Becomes its project's primary when it is healthy.
    pub promote_when_healthy: bool,
    /// `running` or `stopped`.
    pub wanted: Wanted,
}

/// A deployment: the whole row, with its services and its project's name.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    pub id: DeploymentId,
    pub project_id: ProjectId,
    /// The project's.
    pub slug: Slug,
    pub is_primary: bool,
    pub runtime_type: RuntimeType,
    pub spec: serde_json::Value,
    /// The first is the default.
    pub services: Vec<Service>,
    pub source_sha256: Option<String>,
    pub wake_policy: WakePolicy,
    /// None: never stopped for being idle.
    pub idle_timeout_seconds: Option<u32>,
    /// Why it is wanted stopped, where nobody said so.
    pub stop_reason: Option<StopReason>,
    /// It is not stopped before.
    pub stop_after: Option<DateTime<Utc>>,
    pub promote_when_healthy: bool,
    /// A replaced primary: destroyed at this time.
    pub expires_at: Option<DateTime<Utc>>,

    pub wanted: Wanted,
    /// Counts starts that were asked for.
    pub wanted_incarnation: u64,
    /// Counts changes of what is wanted.
    pub generation: u64,
    /// Destroy the row even where the adapter can't be asked.
    pub force_destroy: bool,

    pub seen: Seen,
    /// The incarnation that `seen` is about; 0: none yet.
    pub seen_incarnation: u64,
    /// The generation that was acted upon when it was seen.
    pub seen_generation: u64,
    pub seen_at: Option<DateTime<Utc>>,
    pub seen_detail: Option<String>,
    pub health: Health,
    pub health_detail: Option<String>,
    pub health_at: Option<DateTime<Utc>>,
    /// The adapter's own words for where it is.
    pub locator: Option<String>,

    /// The number of the last operation; 0: none yet.
    pub operation: u64,
    /// The one under way.
    pub current_operation: Option<CurrentOperation>,
    /// Starts that failed in a row.
    pub failures: i32,
    pub last_error: Option<String>,
    pub next_action_at: DateTime<Utc>,
    /// Until when a host has it in its hands.
    pub lease_until: Option<DateTime<Utc>>,

    pub created_at: DateTime<Utc>,
    pub destroyed_at: Option<DateTime<Utc>>,
}

/// Which deployments to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeploymentFilter {
    pub project: Option<ProjectId>,
    pub include_destroyed: bool,
}

/// An operation that was begun and not finished. It survives its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentOperation {
    pub fence: Fence,
    pub kind: OperationKind,
    pub started_at: DateTime<Utc>,
    /// 1 from the beginning, counted up by [`operation_try`](crate::Store::operation_try).
    pub tries: i32,
}

/// The right to act on a deployment and to write what was seen of it, for a while. Whoever takes it next
/// gets a higher epoch, and no write under this one succeeds any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub deployment: DeploymentId,
    /// The host's own id, made at its start.
    pub holder: Uuid,
    pub epoch: u64,
    /// By the database's clock.
    pub until: DateTime<Utc>,
}

/// A deployment that is due, and the lease on it.
#[derive(Debug, Clone)]
pub struct Leased {
    pub deployment: Deployment,
    pub lease: Lease,
    pub operation: Option<CurrentOperation>,
    pub failures: i32,
    pub last_error: Option<String>,
    /// When it became due.
    pub next_due: DateTime<Utc>,
}

/// What was seen of a deployment, and what follows.
#[derive(Debug, Clone)]
pub struct Observation {
    pub seen: Seen,
    /// The incarnation that it is about.
    pub incarnation: u64,
    /// The generation that was acted upon: the leased row's.
    pub generation: u64,
    /// One sentence for a person.
    pub detail: Option<String>,
    /// The operation under way is over.
    pub finished_operation: bool,
    /// Starts that failed in a row, from now on.
    pub failures: i32,
    pub last_error: Option<String>,
    /// When to look again; none: only when something changes. Ignored where what is wanted changed
    /// meanwhile: then it is due at once.
    pub next_action_in: Option<Duration>,
    /// None: not asked. Kept as it was where the same incarnation runs on, else `unknown`.
    pub health: Option<(Health, Option<String>)>,
}

/// What ingress knows of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRow {
    pub deployment: DeploymentId,
    pub project: ProjectId,
    pub slug: Slug,
    pub is_primary: bool,
    pub runtime_type: RuntimeType,
    /// The one that was seen.
    pub incarnation: u64,
    pub generation: u64,
    pub seen: Seen,
    pub wanted: Wanted,
    pub health: Health,
    pub wake_policy: WakePolicy,
    /// Whether its activity is to be reported.
    pub has_idle_timeout: bool,
    /// The first is the default.
    pub services: Vec<Service>,
}

/// Whom a host name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostnameTarget {
    /// Nobody any more.
    Gone,
    Project(ProjectId),
    Deployment(DeploymentId),
}

/// A host name beyond the derived ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname {
    /// Lower case, the whole name.
    pub host: String,
    pub target: HostnameTarget,
    /// None: the default service.
    pub service: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// A domain of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectDomain {
    pub domain: Domain,
    pub project: ProjectId,
    /// None: the project's primary one.
    pub deployment: Option<DeploymentId>,
    /// None: the default service.
    pub service: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// A machine of old, and what has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldMachine {
    pub machine: MachineId,
    /// None: it is gone.
    pub deployment: Option<DeploymentId>,
}

/// What went on at a deployment, as one host saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeploymentActivity {
    pub deployment: DeploymentId,
    /// Requests, streams and upgrades that are open.
    pub open: u32,
    /// Since when nothing goes on; zero where something is open.
    pub idle_for: Duration,
}

/// What became of deployments at a look for idle ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdleSweep {
    /// Wanted stopped from now on.
    pub stopped: Vec<DeploymentId>,
    /// Wanted running again, since something went on after all.
    pub kept: Vec<DeploymentId>,
}

/// A machine: the whole row but its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub id: MachineId,
    /// `custom`, `hetzner`, `local`, …
    pub machine_type: String,
    pub provider_machine_id: Option<String>,
    pub name: String,
    pub status: MachineStatus,
    pub owner_id: Option<UserId>,
    /// An IP address or a name, as the host dials it.
    pub address: Option<String>,
    pub ipv4: Option<Ipv4Addr>,
    pub port: u16,
    pub certificate_sha256: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub cpu_count: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub labels: BTreeMap<String, String>,
    pub holder: Option<MachineHolder>,
    pub claimed_at: Option<DateTime<Utc>>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub retired_at: Option<DateTime<Utc>>,
}

/// Which machines to list.
#[derive(Debug, Clone, Default)]
pub struct MachineFilter {
    pub machine_type: Option<String>,
    pub status: Option<MachineStatus>,
    /// Whether `retired` ones are among them (always where `status` asks for them).
    pub include_retired: bool,
}

/// A one-time token to make.
#[derive(Debug, Clone)]
pub struct NewRegistration {
    /// None: the machine says its own.
    pub name: Option<String>,
    /// `^[a-z][a-z0-9-]*$`
    pub machine_type: String,
    pub labels: BTreeMap<String, String>,
    pub owner: Option<UserId>,
    /// How long the token is good.
    pub ttl: Duration,
}

/// What a machine says of itself when it joins.
#[derive(Debug, Clone)]
pub struct NewMachine {
    pub name: String,
    pub os: String,
    pub arch: String,
    pub cpu_count: u32,
    pub memory_bytes: u64,
    /// Where the host reaches its daemon: an IP address or a name.
    pub address: String,
    pub port: u16,
    /// Lower-case hex SHA-256 of the daemon's certificate (DER).
    pub certificate_sha256: String,
}

/// What a deployment needs of a machine.
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    /// None: any.
    pub machine_type: Option<String>,
    pub min_cpu: Option<u32>,
    /// In bytes.
    pub min_memory: Option<u64>,
    /// All of them, with these values.
    pub labels: BTreeMap<String, String>,
}

/// All that a connection to a machine's daemon needs.
#[derive(Debug)]
pub struct MachineConnection {
    pub machine: MachineId,
    pub address: String,
    pub port: u16,
    pub shared_key: crate::SharedKey,
    /// Lower-case hex SHA-256 of the daemon's certificate (DER).
    pub certificate_sha256: String,
}

/// An adapter as the configuration declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterRow {
    /// What `runtimeType` names.
    pub name: RuntimeType,
    pub component_sha256: String,
    pub version: String,
    pub summary: String,
    /// Interfaces that the component exports.
    pub exports: Vec<String>,
    /// JSON Schema of `spec`.
    pub spec_schema: serde_json::Value,
    /// What a deployment gets that names no runtime type. At most one.
    pub is_default: bool,
    pub grants: Vec<GrantRow>,
}

/// What an adapter may reach. Never a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    pub name: String,
    pub target: String,
    /// None: all.
    pub methods: Option<Vec<String>>,
    /// None: all.
    pub paths: Option<Vec<String>>,
}

/// An adapter as it is mirrored.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub id: AdapterId,
    pub row: AdapterRow,
    pub updated_at: DateTime<Utc>,
}

/// An uploaded archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub sha256: String,
    pub size_bytes: u64,
    pub created_at: DateTime<Utc>,
}

/// Something that happened, to be written down.
#[derive(Debug, Clone, Default)]
pub struct NewEvent {
    /// `noun.verb`: `deployment.running`, `project.primary-changed`.
    pub name: String,
    pub project_id: Option<ProjectId>,
    pub deployment_id: Option<DeploymentId>,
    pub machine_id: Option<MachineId>,
    pub incarnation: Option<u64>,
    /// An object.
    pub data: serde_json::Map<String, serde_json::Value>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// In order of commit: a reader that asks for more than the last it saw misses none.
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub name: String,
    pub project_id: Option<ProjectId>,
    pub deployment_id: Option<DeploymentId>,
    pub machine_id: Option<MachineId>,
    pub incarnation: Option<u64>,
    pub data: serde_json::Value,
}

/// Which events to give: those that match all that is set.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventFilter {
    pub project: Option<ProjectId>,
    pub deployment: Option<DeploymentId>,
    pub machine: Option<MachineId>,
}

/// A token of the control API, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub enum Idempotency {
    /// Never seen: carry the request out, then say
    /// [`idempotency_finish`](crate::Store::idempotency_finish) or
    /// [`idempotency_forget`](crate::Store::idempotency_forget).
    Fresh,
    /// Carried out: answer this.
    Replay { status: u16, response: serde_json::Value },
    /// The key was used for another request.
    Mismatch,
    /// Begun, and not known to be over: under way, or its host died in the middle.
    InProgress { since: DateTime<Utc> },
}

/// As the rows' JSON holds it.
#[derive(serde::Deserialize)]
pub(crate) struct ServiceRow {
    pub name: model::ServiceName,
    pub port: u16,
    pub scheme: Scheme,
}
