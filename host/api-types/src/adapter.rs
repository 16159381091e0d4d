//! Adapters: what runs deployments.

use chrono::{DateTime, Utc};
use model::AdapterId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A component that implements `project-deployment`. Declared by the host's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adapter {
    #[schema(value_type = String, example = "adp_01h455vb4pex5vsknk084sn02q")]
    pub id: AdapterId,
    /// The `runtimeType` that deployments name.
    #[schema(example = "process")]
    pub name: String,
    /// Lower-case hex SHA-256 of the component.
    pub component_sha256: String,
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// The interfaces that the component exports: what it can do is what it exports.
    #[schema(example = json!(["hythe:deployment/project-deployment@0.1.0"]))]
    pub exports: Vec<String>,
    /// JSON Schema (2020-12) of a deployment's `spec`.
    #[schema(value_type = Object)]
    pub spec_schema: Value,
    /// What a deployment gets that names no runtime type.
    #[serde(default)]
    pub is_default: bool,
    /// What it may reach.
    pub grants: Vec<Grant>,
    pub updated_at: DateTime<Utc>,
}

/// A place that an adapter may reach. Credentials are never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    pub name: String,
    pub target: String,
    /// Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
}
