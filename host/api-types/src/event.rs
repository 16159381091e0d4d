//! What happened, in order.

use chrono::{DateTime, Utc};
use model::{DeploymentId, MachineId, ProjectId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Something that happened. Events outlive what they tell of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows in order of commit: a reader that remembers the last one misses none.
    pub seq: u64,
    pub at: DateTime<Utc>,
    #[schema(example = "deployment.running")]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project_id: Option<ProjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment_id: Option<DeploymentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine_id: Option<MachineId>,
    /// The start that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    #[schema(value_type = Object)]
    pub data: Value,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events with a higher `seq`. Default: 0, from the beginning. A stream that is opened again
    /// sends the header `Last-Event-ID` instead, which counts more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Begin with the newest so many instead; not beside `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 200)]
    pub last: Option<u32>,
    /// Keep the stream open and send what comes (server-sent events). Without it a JSON page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(default = false)]
    pub follow: Option<bool>,
    /// Items of a page; not for streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
}
