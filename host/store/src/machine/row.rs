//! A machine as the database gives it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use chrono::{DateTime, Utc};
use model::{AgentId, DeploymentId, MachineHolder, MachineId, UserId};
use sqlx::types::Json;
use uuid::Uuid;

use crate::convert::{count, parse, port};
use crate::error::StoreError;
use crate::types::Machine;

/// The whole row but its key, with what follows the FROM as given.
macro_rules! machine_query {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::machine::row::MachineRow,
            r#"SELECT m.id, m.type AS machine_type, m.provider_machine_id, m.name, m.status, m.owner_id, m.address,
                host(m.ipv4) AS ipv4, m.port, m.certificate_sha256, m.os, m.arch, m.cpu_count, m.memory_bytes,
                m.labels AS "labels: crate::machine::row::Labels",
                m.current_agent_id, m.current_deployment_id, m.claimed_at, m.last_seen_at, m.created_at, m.retired_at
             FROM machines m "#
                + $tail
            $(, $argument)*
        )
    };
}
pub(super) use machine_query;

pub(crate) type Labels = Json<BTreeMap<String, String>>;

pub(crate) struct MachineRow {
    pub id: Uuid,
    pub machine_type: String,
    pub provider_machine_id: Option<String>,
    pub name: String,
    pub status: String,
    pub owner_id: Option<Uuid>,
    pub address: Option<String>,
    pub ipv4: Option<String>,
    pub port: i32,
    pub certificate_sha256: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub cpu_count: Option<i32>,
    pub memory_bytes: Option<i64>,
    pub labels: Labels,
    pub current_agent_id: Option<Uuid>,
    pub current_deployment_id: Option<Uuid>,
    pub claimed_at: Option<DateTime<Utc>>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub retired_at: Option<DateTime<Utc>>,
}

impl TryFrom<MachineRow> for Machine {
    type Error = StoreError;

    fn try_from(row: MachineRow) -> Result<Self, StoreError> {
        let holder = match (row.current_deployment_id, row.current_agent_id) {
            (Some(id), _) => Some(MachineHolder::Deployment(DeploymentId::from_uuid(id))),
            (_, Some(id)) => Some(MachineHolder::Agent(AgentId::from_uuid(id))),
            (None, None) => None,
        };
        Ok(Self {
            id: MachineId::from_uuid(row.id),
            machine_type: row.machine_type,
            provider_machine_id: row.provider_machine_id,
            name: row.name,
            status: parse(&row.status)?,
            owner_id: row.owner_id.map(UserId::from_uuid),
            address: row.address,
            ipv4: row.ipv4.as_deref().map(parse::<Ipv4Addr>).transpose()?,
            port: port(row.port)?,
            certificate_sha256: row.certificate_sha256,
            os: row.os,
            arch: row.arch,
            cpu_count: row.cpu_count.map(i32::unsigned_abs),
            memory_bytes: row.memory_bytes.map(count),
            labels: row.labels.0,
            holder,
            claimed_at: row.claimed_at,
            last_seen_at: row.last_seen_at,
            created_at: row.created_at,
            retired_at: row.retired_at,
        })
    }
}

/// The address once more, where it is of this kind.
pub(super) fn ipv4(address: &str) -> Option<String> {
    address.parse::<Ipv4Addr>().ok().map(|address| address.to_string())
}
