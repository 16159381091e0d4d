//! Machines, and how they join.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use model::{AgentId, DeploymentId, MachineId, MachineStatus, UserId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::schema;

/// A machine, whatever made it. Never with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    #[schema(value_type = String, example = "mach_01h455vb4pex5vsknk084sn02q")]
    pub id: MachineId,
    /// What made it: `custom`, or a provider's name.
    #[schema(example = "custom")]
    pub r#type: String,
    /// The provider's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_machine_id: Option<String>,
    pub name: String,
    #[schema(value_type = schema::MachineStatus)]
    pub status: MachineStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub owner_id: Option<UserId>,
    /// As the host dials it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// Of its daemon.
    pub port: u16,
    /// Lower-case hex SHA-256 of its daemon's certificate (DER).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    pub labels: BTreeMap<String, String>,
    /// The agent of the user's domain that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub current_agent_id: Option<AgentId>,
    /// The deployment that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub current_deployment_id: Option<DeploymentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<DateTime<Utc>>,
    /// When its daemon last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<DateTime<Utc>>,
}

/// Which machines to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachineFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<schema::MachineStatus>)]
    pub status: Option<MachineStatus>,
    /// Also those that are retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(default = false)]
    pub include_retired: Option<bool>,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
}

/// Body of `POST /v1/machine-registrations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRegistration {
    /// Default: the name that the machine gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `^[a-z][a-z0-9-]*$`. Default: `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "custom", pattern = "^[a-z][a-z0-9-]*$")]
    pub r#type: Option<String>,
    /// Deployments may ask for a machine with these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long the token is good. Default: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86400, default = 3600)]
    pub ttl_seconds: Option<u64>,
}

/// A one-time token with which a machine joins. Shown once, kept only as a hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// `amt_` and 48 hex digits.
    pub token: String,
    pub expires_at: DateTime<Utc>,
    /// One line to paste into a shell of the machine.
    #[schema(example = "hythe-agent join --host http://127.0.0.1:8090 --token amt_…")]
    pub command: String,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
