//! Domains that projects own.

use chrono::{DateTime, Utc};
use model::{DeploymentId, ProjectId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A domain of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Domain {
    /// Lower case, international names in their `xn--` form; `*.` in front stands for any one label.
    #[schema(example = "shop.example.com")]
    pub domain: String,
    #[schema(value_type = String, example = "prj_01h455vb4pex5vsknk084sn02q")]
    pub project_id: ProjectId,
    /// Leads to this deployment. Absent: to the project's primary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment_id: Option<DeploymentId>,
    /// A service's name or a port. Absent: the default service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// Body of `POST /v1/projects/{project}/domains`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddDomain {
    /// `shop.example.com`, or `*.shop.example.com` for every name that is one label longer. International names
    /// are taken as they are, and kept in their `xn--` form.
    #[schema(example = "shop.example.com", max_length = 253)]
    pub domain: String,
    /// One of the project's. Absent: whichever is primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment_id: Option<DeploymentId>,
    /// A service's name or a port. Absent: the default service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "web")]
    pub service: Option<String>,
}
