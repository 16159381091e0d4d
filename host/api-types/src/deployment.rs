//! Deployments: what is wanted of them, what was seen, where they answer.

use chrono::{DateTime, Utc};
use model::{
    DeploymentId, Health, MachineId, ProjectId, RuntimeType, Scheme, Seen, ServiceName, Slug, StopReason,
    WakePolicy, Wanted,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::schema;

/// A routable HTTP target with a life of its own.
///
/// `wantedState`, `wantedIncarnation` and `generation` are what users asked for; `state`, `incarnation`
/// and `health` are what was last seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    #[schema(value_type = String, example = "dep_01h455vb4pex5vsknk084sn02q")]
    pub id: DeploymentId,
    #[schema(value_type = String, example = "prj_01h455vb4pex5vsknk084sn02q")]
    pub project_id: ProjectId,
    #[schema(value_type = String, example = "shop")]
    pub project_slug: Slug,
    /// Names the adapter.
    #[schema(value_type = String, example = "process")]
    pub runtime_type: RuntimeType,
    /// Valid under the adapter's `specSchema`. Never changes.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// The first is the default service.
    pub services: Vec<Service>,
    /// Lower-case hex SHA-256 of the uploaded archive, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<String>,
    #[schema(value_type = schema::WakePolicy)]
    pub wake_policy: WakePolicy,
    /// It is stopped when nothing has gone on at it for so many seconds. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<u32>,
    /// Becomes its project's primary as soon as it is healthy.
    pub promote_when_healthy: bool,
    #[schema(value_type = schema::Wanted)]
    pub wanted_state: Wanted,
    /// Why it is wanted stopped, where nobody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::StopReason>)]
    pub stop_reason: Option<StopReason>,
    /// Counts starts that were asked for.
    pub wanted_incarnation: u64,
    /// Counts changes of what is wanted.
    pub generation: u64,
    /// As last seen, never as hoped.
    #[schema(value_type = schema::Seen)]
    pub state: Seen,
    /// The start that `state` is about. 0: never started.
    pub incarnation: u64,
    /// One sentence of the adapter about `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When `state` was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<DateTime<Utc>>,
    #[schema(value_type = schema::Health)]
    pub health: Health,
    /// Why it is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_detail: Option<String>,
    /// What the project's own host leads to.
    pub is_primary: bool,
    /// What the host is doing to it, where it does something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Where its services answer.
    pub urls: Vec<ServiceUrl>,
    /// The machine that it holds, where it holds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "mach_01h455vb4pex5vsknk084sn02q")]
    pub machine_id: Option<MachineId>,
    pub created_at: DateTime<Utc>,
    /// Replaced by another primary: destroyed at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl Deployment {
    /// The address to show: the default service's, under the project's host where this is the
    /// primary deployment.
    #[must_use]
    pub fn main_url(&self) -> Option<&ServiceUrl> {
        let wanted = if self.is_primary { HostKind::Project } else { HostKind::Deployment };
        let of_kind = |kind| self.urls.iter().find(move |url| url.is_default && url.kind == kind);
        of_kind(wanted).or_else(|| of_kind(HostKind::Deployment))
    }
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// As a slug, at most 15 characters.
    #[schema(value_type = String, example = "web", max_length = 15)]
    pub name: ServiceName,
    /// The port that the workload is told to listen on.
    #[schema(minimum = 1, maximum = 65535, example = 3000)]
    pub port: u16,
    /// What it speaks. Default: `http`.
    #[serde(default = "http")]
    #[schema(value_type = schema::Scheme, default = "http")]
    pub scheme: Scheme,
}

fn http() -> Scheme {
    Scheme::Http
}

impl From<model::Service> for Service {
    fn from(model::Service { name, port, scheme }: model::Service) -> Self {
        Self { name, port, scheme }
    }
}

impl From<Service> for model::Service {
    fn from(Service { name, port, scheme }: Service) -> Self {
        Self { name, port, scheme }
    }
}

/// What a derived host follows. (`GET /v1/hostnames` lists those that users gave.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum HostKind {
    /// The project's primary deployment, whichever it is.
    Project,
    /// This deployment for good.
    Deployment,
}

/// Where a service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceUrl {
    /// Absent where the host leads to the default service of whatever is primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "web")]
    pub service: Option<ServiceName>,
    /// The host leads to the default service without naming it.
    pub is_default: bool,
    pub kind: HostKind,
    #[schema(example = "shop.localhost")]
    pub host: String,
    #[schema(example = "http://shop.localhost:8080/")]
    pub url: String,
}

/// What the host does to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum OperationKind {
    Start,
    Stop,
    Restart,
    Destroy,
}

/// An operation under way; makes visible what is stuck, since when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    pub kind: OperationKind,
    pub started_at: DateTime<Utc>,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    pub next_try_at: DateTime<Utc>,
}

/// Body of `POST /v1/projects/{project}/deployments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateDeployment {
    /// Names the adapter: `GET /v1/adapters` lists them.
    #[schema(value_type = String, example = "process")]
    pub runtime_type: RuntimeType,
    /// Checked against the adapter's `specSchema`.
    #[schema(value_type = Object, example = json!({"command": ["node", "server.js"]}))]
    pub spec: Value,
    /// The first is the default service. None: it takes no requests.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Lower-case hex SHA-256 of an archive given to `PUT /v1/sources/{sha256}` before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<String>,
    /// What a request does when it is stopped. Default: `none`. The words of before, `on-request` (now
    /// `dynamic`) and `never` (now `none`), are read too.
    #[serde(default = "no_wake")]
    #[schema(value_type = schema::WakePolicy, default = "none")]
    pub wake_policy: WakePolicy,
    /// Stop it when nothing has gone on at it for so many seconds: no request, no open stream or WebSocket.
    /// Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 5, maximum = 31_536_000, example = 900)]
    pub idle_timeout_seconds: Option<u32>,
    /// Whether it replaces the project's primary deployment as soon as it is healthy.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub promote_when_healthy: bool,
    /// Whether it is started at once.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub start: bool,
}

fn no_wake() -> WakePolicy {
    WakePolicy::None
}

fn yes() -> bool {
    true
}

/// Which deployments to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeploymentFilter {
    /// Slug or id of a project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only those last seen in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::Seen>)]
    pub state: Option<Seen>,
    /// Also those that are destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(default = false)]
    pub include_destroyed: Option<bool>,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
}

/// How to delete a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Give up what the adapter can't be reached for: what it held may stay behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(default = false)]
    pub force: Option<bool>,
}

/// What to wait for: a state as seen, or a healthy one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum WaitState {
    Running,
    /// Running, and its health check succeeded.
    Healthy,
    Stopped,
    Failed,
    Destroyed,
}

/// What to wait for, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    pub state: WaitState,
    /// Of this start, not of an earlier one. Default: the deployment's `wantedIncarnation` when the
    /// wait begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// Seconds to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 600, default = 60)]
    pub timeout: Option<u64>,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum WaitOutcome {
    /// It is in the state.
    Reached,
    /// The time was over first. Ask again to go on.
    TimedOut,
    /// It failed, with nothing under way that would change it.
    Failed,
    /// It is gone.
    Destroyed,
    /// A later start was asked for or seen: the named one will not come.
    Superseded,
}

/// Answer of a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitResult {
    /// Whether the outcome is `reached`.
    pub reached: bool,
    pub outcome: WaitOutcome,
    /// As it is when the wait ends.
    pub deployment: Deployment,
}

/// Answer of a health check made now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    #[schema(value_type = schema::Health)]
    pub health: Health,
    /// One sentence: why it is not healthy, or how it was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The start that was looked at.
    pub incarnation: u64,
    pub checked_at: DateTime<Utc>,
}
