//! Hosts beyond the derived ones.

use chrono::{DateTime, Utc};
use model::{DeploymentId, ProjectId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host that leads to a project or a deployment, looked up exactly and before the derived ones. Neither: what
/// it led to is gone, and it is answered with 410.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hostname {
    /// Lower case.
    #[schema(example = "shop.example.com")]
    pub host: String,
    /// Leads to the project's primary deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project_id: Option<ProjectId>,
    /// Leads to this deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment_id: Option<DeploymentId>,
    /// A service's name or a port. Absent: the default service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// Body of `PUT /v1/hostnames/{host}`: exactly one of `projectId` and `deploymentId`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutHostname {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project_id: Option<ProjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment_id: Option<DeploymentId>,
    /// A service's name or a port. Absent: the default service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}
