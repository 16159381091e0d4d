//! What the host, the adapters and the daemon (`hythe-agent`) say to each other.
//!
//! One TLS 1.3 port, [`ALPN`] `hythe-agent/1`, certificates pinned both ways. A connection is
//! authenticated once: any request may bear `authorization: Hythe <machine> <proof>`, where `proof` is
//! the lower-case hex HMAC-SHA256, under the machine's shared key, of [`CLIENT_PROOF_CONTEXT`] followed
//! by 32 bytes of the TLS exporter (RFC 5705; RFC 8446, section 7.5; as channel binding, RFC 9266)
//! with the label [`EXPORTER_LABEL`] and no context. A right proof authenticates the connection for
//! all later requests and is answered with `hythe-proof`, the same over [`SERVER_PROOF_CONTEXT`].
//! There is nothing to replay: the exporter is another on every connection. Without a proof only
//! `GET /health` is answered; all else is 401.
//!
//! Over it HTTP/1.1: the requests of [`path`], and `CONNECT 127.0.0.1:<port>` for tunnels to a local
//! port of a workload ([`header::DEPLOYMENT`] and [`header::INCARNATION`] name it).
//!
//! No I/O here: the crate also builds for Wasm, where the adapters that drive the daemon use it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod frame;

/// The daemon's port where none is given.
pub const DEFAULT_PORT: u16 = 8911;
/// The protocol's version, agreed in TLS.
pub const ALPN: &[u8] = b"hythe-agent/1";
/// Label of the exported keying material; 32 bytes of it, without a context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-hythe-agent-1";
/// Put before the exporter in the host's proof.
pub const CLIENT_PROOF_CONTEXT: &[u8] = b"hythe-agent/1 client\n";
/// Put before the exporter in the daemon's proof.
pub const SERVER_PROOF_CONTEXT: &[u8] = b"hythe-agent/1 server\n";

/// Header names, lower case.
pub mod header {
    /// `Hythe <machine id> <proof>`.
    pub const AUTHORIZATION: &str = "authorization";
    /// The daemon's own proof, in the answer to an authenticating request.
    pub const PROOF: &str = "hythe-proof";
    /// The deployment that the request is about (`dep_…`). Set by the host, never by an adapter.
    pub const DEPLOYMENT: &str = "hythe-deployment";
    /// Counts changes of what is wanted.
    pub const GENERATION: &str = "hythe-generation";
    /// Counts starts.
    pub const INCARNATION: &str = "hythe-incarnation";
    /// Counts operations: the fence. A changing request with a lower one than the daemon has seen
    /// for the deployment is refused with 409 [`error_code::SUPERSEDED`](super::error_code::SUPERSEDED).
    pub const OPERATION: &str = "hythe-operation";
}

/// Paths of the daemon. `{deployment}` is the whole id, `dep_…`. In brackets: whether the request must
/// bear the fence's headers ([`header`]).
pub mod path {
    /// `GET`, no proof needed: [`Health`](super::DaemonHealth).
    pub const HEALTH: &str = "/health";
    /// `GET`: [`AgentStatus`](super::AgentStatus).
    pub const STATUS: &str = "/v1/status";

    /// `HEAD` (200 or 404) or `PUT` (body: the archive, tar.zst) of a source by its lower-case hex
    /// SHA-256. 201 when stored, 200 when it was there, 422 `digest-mismatch` or `invalid-archive`,
    /// 507 `disk-full`; nothing half-written stays.
    #[must_use]
    pub fn source(digest: &str) -> String {
        format!("/v1/sources/{digest}")
    }

    /// `GET`: [`WorkloadStatus`](super::WorkloadStatus), 404 where there is none; of one that was removed,
    /// for 30 days, `destroyed`.
    /// `PUT` (fence) [`WorkloadSpec`](super::WorkloadSpec): starts the fence's incarnation, or says how
    /// far it is. 424 `source-missing` where the source must be uploaded first.
    /// `DELETE` (fence): gone with its files; answers with phase `stopping` until it is, then
    /// `destroyed`. Gone already is success.
    #[must_use]
    pub fn workload(deployment: &str) -> String {
        format!("/v1/workloads/{deployment}")
    }

    /// `POST` (fence) [`StopRequest`](super::StopRequest): answers at once with a status, `stopping`
    /// or `stopped`. A workload that never was is `stopped`.
    #[must_use]
    pub fn stop(deployment: &str) -> String {
        format!("/v1/workloads/{deployment}/stop")
    }

    /// `GET`: [`LocalPort`](super::LocalPort) for a service's name, or for a decimal port on which a
    /// process of the workload listens. 404 otherwise.
    #[must_use]
    pub fn port(deployment: &str, service_or_port: &str) -> String {
        format!("/v1/workloads/{deployment}/ports/{service_or_port}")
    }

    /// `POST` [`ExecRequest`](super::ExecRequest): runs it, unless this execution id (`exec_…`) was seen
    /// before: then attaches from the beginning. 409 `not-running` where the workload is not. `GET ?cursor=`: attaches from that many bytes on, 404
    /// where it is not (any more) known. Answers stream [`frame`](super::frame)s until the exit.
    #[must_use]
    pub fn execution(deployment: &str, execution: &str) -> String {
        format!("/v1/workloads/{deployment}/executions/{execution}")
    }

    /// `GET ?lines=&follow=&sinceMs=`: [`LogLine`](super::LogLine)s as JSON, one a line.
    #[must_use]
    pub fn logs(deployment: &str, query: &super::LogQuery) -> String {
        let mut path =
            format!("/v1/workloads/{deployment}/logs?lines={}&follow={}", query.lines, query.follow);
        if let Some(since) = query.since_ms {
            path.push_str(&format!("&sinceMs={since}"));
        }
        path
    }
}

/// Stable codes of [`Problem`].
pub mod error_code {
    /// 401: no valid proof on this connection.
    pub const UNAUTHENTICATED: &str = "unauthenticated";
    /// 400: the request's form is wrong.
    pub const INVALID: &str = "invalid";
    /// 404
    pub const NOT_FOUND: &str = "not-found";
    /// 409: a later operation was seen. Nothing was done.
    pub const SUPERSEDED: &str = "superseded";
    /// 409: it needs a running workload. Nothing was done.
    pub const NOT_RUNNING: &str = "not-running";
    /// 424: upload the source first.
    pub const SOURCE_MISSING: &str = "source-missing";
    /// 422: the body's SHA-256 is not the one in the path.
    pub const DIGEST_MISMATCH: &str = "digest-mismatch";
    /// 422: not a tar.zst, or it leads out of its own folder.
    pub const INVALID_ARCHIVE: &str = "invalid-archive";
    /// 507
    pub const DISK_FULL: &str = "disk-full";
    /// 503: passing; try again.
    pub const UNAVAILABLE: &str = "unavailable";
    /// 500
    pub const INTERNAL: &str = "internal";
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// One of [`error_code`].
    pub code: String,
    /// One sentence for a person: what, where, what to do.
    pub message: String,
}

/// Answer of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonHealth {
    /// Always `ok`.
    pub status: String,
    pub version: String,
    pub uptime_ms: u64,
}

/// What a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineFacts {
    pub name: String,
    /// As Rust's `std::env::consts::OS`.
    pub os: String,
    /// As Rust's `std::env::consts::ARCH`.
    pub arch: String,
    pub cpu_count: u32,
    pub memory_bytes: u64,
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    pub version: String,
    pub machine: MachineFacts,
    pub workloads: Vec<WorkloadStatus>,
}

/// What the daemon is told to run. The schema of a deployment's `spec` under the adapters that ship is
/// this without `source` and `services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The program and its arguments: no shell. Run in the source's folder.
    pub command: Vec<String>,
    /// Commands that run to their end, in order, before the first start of each source; a failing
    /// one fails the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Folder to run in, relative to the source's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How long a start may take, set-up included, until the default service's port accepts
    /// connections.
    #[serde(default = "default_start_timeout_ms")]
    pub start_timeout_ms: u64,
    /// Digest of the uploaded archive, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The first is the default. The daemon picks a free local port for each and says it in
    /// `PORT_<NAME>` (upper case, `-` as `_`), the default's also in `PORT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<WorkloadService>,
}

impl Default for WorkloadSpec {
    /// What is read where nothing is said; the command is left to fill in.
    fn default() -> Self {
        Self {
            command: Vec::new(),
            setup: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            limits: Limits::default(),
            restart: RestartPolicy::default(),
            start_timeout_ms: default_start_timeout_ms(),
            source: None,
            services: Vec::new(),
        }
    }
}

fn default_start_timeout_ms() -> u64 {
    300_000
}

/// A service of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadService {
    pub name: String,
    /// The port by which the deployment knows it.
    pub port: u16,
}

/// Bounds on a workload, kept where the machine's cgroups allow it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Cores: 0.5 is half of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl Limits {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When a workload's process ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestartPolicy {
    /// Restarts in a row before the workload is `failed`. A run of a minute resets the count.
    pub max_attempts: u32,
    /// First pause; each following one is twice as long.
    pub backoff_ms: u64,
    /// Longest pause.
    pub max_backoff_ms: u64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { max_attempts: 5, backoff_ms: 200, max_backoff_ms: 10_000 }
    }
}

/// Body of a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopRequest {
    /// From SIGTERM to SIGKILL, for the whole process group.
    pub grace_ms: u64,
}

/// Where a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WorkloadPhase {
    /// Unpacking, in set-up, started but not yet listening, or in the pause before a restart.
    Starting,
    Running,
    Stopping,
    Stopped,
    Failed,
    Destroyed,
}

/// Answer about a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    pub deployment: String,
    pub generation: u64,
    pub incarnation: u64,
    /// The highest operation seen.
    pub operation: u64,
    pub phase: WorkloadPhase,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Supervised restarts of this incarnation.
    pub attempts: u32,
    /// Process id of the workload's leader, where one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The last end of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// Unix time in milliseconds of the last change of phase.
    pub since_ms: u64,
    pub services: Vec<ServicePort>,
}

/// A service and where it listens on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    pub name: String,
    pub port: u16,
    pub local_port: u16,
}

/// Answer of `GET …/ports/…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalPort {
    pub local_port: u16,
}

/// A command to run inside a workload: with its user, folder and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecRequest {
    /// No shell.
    pub argv: Vec<String>,
    /// Relative to the source's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// None: 120 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "value")]
pub enum Exit {
    Code(i32),
    /// By its name: `SIGKILL`.
    Signal(String),
    TimedOut,
    /// It ended while no daemon watched.
    Unknown,
}

/// What lines to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogQuery {
    pub lines: u32,
    pub follow: bool,
    pub since_ms: Option<u64>,
}

/// One line that a workload printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Unix time in milliseconds at which the daemon read it.
    pub at_ms: u64,
    /// `stdout`, `stderr`, `setup` or `hythe` (the daemon's own words).
    pub origin: String,
    /// Without its end; invalid UTF-8 replaced.
    pub text: String,
}

/// What a machine sends to join: `POST /v1/machines/register` of the control API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationRequest {
    /// One-time token, `amt_` + 48 hex digits, good for an hour.
    pub token: String,
    pub facts: MachineFacts,
    /// Address at which the host reaches the daemon.
    pub address: String,
    pub port: u16,
    /// Lower-case hex SHA-256 of the daemon's certificate (DER).
    pub certificate_sha256: String,
}

/// What the host answers. Written to `identity.json` (0600) in the daemon's data folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResponse {
    pub machine_id: String,
    /// 32 bytes, lower-case hex.
    pub shared_key: String,
    /// Lower-case hex SHA-256 of the host's client certificate (DER).
    pub host_certificate_sha256: String,
}

impl std::fmt::Debug for RegistrationResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrationResponse").field("machine_id", &self.machine_id).finish_non_exhaustive()
    }
}
