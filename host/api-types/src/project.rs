//! Projects.

use chrono::{DateTime, Utc};
use model::{DeploymentId, ProjectId, Slug};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deployment::ServiceUrl;

/// A slug with deployments, at most one of them primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    #[schema(value_type = String, example = "prj_01h455vb4pex5vsknk084sn02q")]
    pub id: ProjectId,
    #[schema(value_type = String, example = "shop")]
    pub slug: Slug,
    /// What the project's own host leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "dep_01h455vb4pex5vsknk084sn02q")]
    pub primary_deployment_id: Option<DeploymentId>,
    /// Hosts that follow the primary deployment.
    pub urls: Vec<ServiceUrl>,
    pub created_at: DateTime<Utc>,
}

/// Body of `POST /v1/projects`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateProject {
    /// `^[a-z]([a-z0-9-]*[a-z0-9])?$`, at most 50 characters, no `--`, no `dep-` in front, none of `xn`,
    /// `machines`, `prj`, `org`.
    #[schema(value_type = String, example = "shop", max_length = 50, pattern = "^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    pub slug: Slug,
}
