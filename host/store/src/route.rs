//! What ingress knows of deployments: every one that is not destroyed.

use model::{DeploymentId, ProjectId};
use sqlx::types::Json;
use uuid::Uuid;

use crate::convert::{count, parse};
use crate::deployment::services;
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{RouteRow, ServiceRow};

struct Row {
    id: Uuid,
    project_id: Uuid,
    slug: String,
    is_primary: bool,
    runtime_type: String,
    seen_incarnation: i64,
    generation: i64,
    seen_state: String,
    wanted_state: String,
    health: String,
    wake_policy: String,
    has_idle_timeout: bool,
    services: Json<Vec<ServiceRow>>,
}

impl TryFrom<Row> for RouteRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            deployment: DeploymentId::from_uuid(row.id),
            project: ProjectId::from_uuid(row.project_id),
            slug: parse(&row.slug)?,
            is_primary: row.is_primary,
            runtime_type: parse(&row.runtime_type)?,
            incarnation: count(row.seen_incarnation),
            generation: count(row.generation),
            seen: parse(&row.seen_state)?,
            wanted: parse(&row.wanted_state)?,
            health: parse(&row.health)?,
            wake_policy: parse(&row.wake_policy)?,
            has_idle_timeout: row.has_idle_timeout,
            services: services(row.services),
        })
    }
}

impl Store {
    /// Every deployment that is not destroyed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn route_list(&self) -> Result<Vec<RouteRow>, StoreError> {
        self.call("route_list", self.routes(None, None)).await
    }

    /// Those of one project: for when its primary changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn route_list_of_project(&self, project: ProjectId) -> Result<Vec<RouteRow>, StoreError> {
        self.call("route_list_of_project", self.routes(Some(project), None)).await
    }

    /// One; none where it is destroyed or was never there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn route_get(&self, deployment: DeploymentId) -> Result<Option<RouteRow>, StoreError> {
        Ok(self.call("route_get", self.routes(None, Some(deployment))).await?.pop())
    }

    async fn routes(
        &self,
        project: Option<ProjectId>,
        deployment: Option<DeploymentId>,
    ) -> Result<Vec<RouteRow>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT d.id, d.project_id, p.slug, p.primary_deployment_id IS NOT DISTINCT FROM d.id AS "is_primary!",
                d.runtime_type, d.seen_incarnation, d.generation, d.seen_state, d.wanted_state, d.health, d.wake_policy,
                d.idle_timeout_seconds IS NOT NULL AS "has_idle_timeout!",
                (SELECT coalesce(json_agg(json_build_object('name', s.name, 'port', s.port, 'scheme', s.scheme)
                        ORDER BY s.position), '[]')
                    FROM services s WHERE s.deployment_id = d.id) AS "services!: Json<Vec<ServiceRow>>"
             FROM deployments d JOIN projects p ON p.id = d.project_id
             WHERE d.seen_state <> 'destroyed'
                AND ($1::uuid IS NULL OR d.project_id = $1)
                AND ($2::uuid IS NULL OR d.id = $2)
             ORDER BY d.id"#,
            project.map(|id| id.uuid()),
            deployment.map(|id| id.uuid()),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(RouteRow::try_from).collect()
    }
}
