//! A deployment as the database gives it.

use chrono::{DateTime, Utc};
use model::{DeploymentId, Fence, ProjectId, Service};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use crate::convert::{count, parse};
use crate::error::StoreError;
use crate::types::{CurrentOperation, Deployment, ServiceRow};

/// The whole row, with what follows the FROM as given: the one place that lists its columns.
macro_rules! deployment_query {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::deployment::row::DeploymentRow,
            r#"SELECT d.id, d.project_id, p.slug, p.primary_deployment_id IS NOT DISTINCT FROM d.id AS "is_primary!",
                d.runtime_type, d.spec, d.source_sha256, d.wake_policy, d.idle_timeout_seconds, d.stop_reason, d.stop_after,
                d.promote_when_healthy, d.expires_at,
                (SELECT coalesce(json_agg(json_build_object('name', s.name, 'port', s.port, 'scheme', s.scheme)
                        ORDER BY s.position), '[]')
                    FROM services s WHERE s.deployment_id = d.id) AS "services!: sqlx::types::Json<Vec<crate::types::ServiceRow>>",
                d.wanted_state, d.wanted_incarnation, d.generation, d.force_destroy,
                d.seen_state, d.seen_incarnation, d.seen_generation, d.seen_at, d.seen_detail,
                d.health, d.health_detail, d.health_at, d.locator,
                d.operation, d.operation_kind, d.operation_generation, d.operation_incarnation,
                d.operation_started_at, d.operation_tries,
                d.failures, d.last_error, d.next_action_at, d.lease_until, d.created_at, d.destroyed_at
             FROM deployments d JOIN projects p ON p.id = d.project_id "#
                + $tail
            $(, $argument)*
        )
    };
}
pub(super) use deployment_query;

pub(crate) struct DeploymentRow {
    pub id: Uuid,
    pub project_id: Uuid,
    pub slug: String,
    pub is_primary: bool,
    pub runtime_type: String,
    pub spec: Value,
    pub source_sha256: Option<String>,
    pub wake_policy: String,
    pub idle_timeout_seconds: Option<i32>,
    pub stop_reason: Option<String>,
    pub stop_after: Option<DateTime<Utc>>,
    pub promote_when_healthy: bool,
    pub expires_at: Option<DateTime<Utc>>,
    pub services: Json<Vec<ServiceRow>>,
    pub wanted_state: String,
    pub wanted_incarnation: i64,
    pub generation: i64,
    pub force_destroy: bool,
    pub seen_state: String,
    pub seen_incarnation: i64,
    pub seen_generation: i64,
    pub seen_at: Option<DateTime<Utc>>,
    pub seen_detail: Option<String>,
    pub health: String,
    pub health_detail: Option<String>,
    pub health_at: Option<DateTime<Utc>>,
    pub locator: Option<String>,
    pub operation: i64,
    pub operation_kind: Option<String>,
    pub operation_generation: Option<i64>,
    pub operation_incarnation: Option<i64>,
    pub operation_started_at: Option<DateTime<Utc>>,
    pub operation_tries: i32,
    pub failures: i32,
    pub last_error: Option<String>,
    pub next_action_at: DateTime<Utc>,
    pub lease_until: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub destroyed_at: Option<DateTime<Utc>>,
}

impl DeploymentRow {
    fn current_operation(&self) -> Result<Option<CurrentOperation>, StoreError> {
        let (Some(kind), Some(generation), Some(incarnation), Some(started_at)) = (
            &self.operation_kind,
            self.operation_generation,
            self.operation_incarnation,
            self.operation_started_at,
        ) else {
            return Ok(None);
        };
        Ok(Some(CurrentOperation {
            fence: Fence {
                deployment: DeploymentId::from_uuid(self.id),
                generation: count(generation),
                incarnation: count(incarnation),
                operation: count(self.operation),
            },
            kind: parse(kind)?,
            started_at,
            tries: self.operation_tries,
        }))
    }
}

pub(crate) fn services(rows: Json<Vec<ServiceRow>>) -> Vec<Service> {
    rows.0.into_iter().map(|ServiceRow { name, port, scheme }| Service { name, port, scheme }).collect()
}

impl TryFrom<DeploymentRow> for Deployment {
    type Error = StoreError;

    fn try_from(row: DeploymentRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: DeploymentId::from_uuid(row.id),
            project_id: ProjectId::from_uuid(row.project_id),
            slug: parse(&row.slug)?,
            is_primary: row.is_primary,
            runtime_type: parse(&row.runtime_type)?,
            wake_policy: parse(&row.wake_policy)?,
            idle_timeout_seconds: row.idle_timeout_seconds.map(i32::unsigned_abs),
            stop_reason: row.stop_reason.as_deref().map(parse).transpose()?,
            stop_after: row.stop_after,
            wanted: parse(&row.wanted_state)?,
            seen: parse(&row.seen_state)?,
            health: parse(&row.health)?,
            current_operation: row.current_operation()?,
            spec: row.spec,
            services: services(row.services),
            source_sha256: row.source_sha256,
            promote_when_healthy: row.promote_when_healthy,
            expires_at: row.expires_at,
            wanted_incarnation: count(row.wanted_incarnation),
            generation: count(row.generation),
            force_destroy: row.force_destroy,
            seen_incarnation: count(row.seen_incarnation),
            seen_generation: count(row.seen_generation),
            seen_at: row.seen_at,
            seen_detail: row.seen_detail,
            health_detail: row.health_detail,
            health_at: row.health_at,
            locator: row.locator,
            operation: count(row.operation),
            failures: row.failures,
            last_error: row.last_error,
            next_action_at: row.next_action_at,
            lease_until: row.lease_until,
            created_at: row.created_at,
            destroyed_at: row.destroyed_at,
        })
    }
}
