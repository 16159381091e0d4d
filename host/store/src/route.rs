//! What ingress knows: every deployment that is not destroyed, and the host names beyond the derived ones.

use model::{DeploymentId, ProjectId};
use sqlx::types::Json;
use uuid::Uuid;

use crate::convert::{count, parse};
use crate::deployment::services;
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Hostname, HostnameTarget, RouteRow, ServiceRow};

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

    /// Leads a host name (lower-cased here) to a project or a deployment; replaces where the same project or
    /// deployment has it.
    ///
    /// # Errors
    /// Conflict `hostname-taken` or `invalid-hostname`; [`StoreError::NotFound`] for the target.
    pub async fn hostname_put(
        &self,
        host: &str,
        target: HostnameTarget,
        service: Option<&str>,
    ) -> Result<Hostname, StoreError> {
        let host = host.to_lowercase();
        if host.is_empty() || host.len() > 253 {
            return Err(StoreError::conflict(
                "invalid-hostname",
                format!("the host name {host:?} has {} characters: 1 to 253 (RFC 1035)", host.len()),
            ));
        }
        let (project, deployment) = match target {
            HostnameTarget::Project(id) => (Some(id.uuid()), None),
            HostnameTarget::Deployment(id) => (None, Some(id.uuid())),
        };
        self.call("hostname_put", async {
            let created_at = sqlx::query_scalar!(
                "INSERT INTO hostnames AS h (host, project_id, deployment_id, service) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (host) DO UPDATE SET service = excluded.service
                    WHERE h.project_id IS NOT DISTINCT FROM excluded.project_id
                        AND h.deployment_id IS NOT DISTINCT FROM excluded.deployment_id
                 RETURNING created_at",
                host,
                project,
                deployment,
                service,
            )
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::from)
            .map_err(|error| {
                if error.violates("hostnames_project_id_fkey")
                    || error.violates("hostnames_deployment_id_fkey")
                {
                    match target {
                        HostnameTarget::Project(id) => StoreError::not_found("project", id),
                        HostnameTarget::Deployment(id) => StoreError::not_found("deployment", id),
                    }
                } else {
                    error
                }
            })?
            .ok_or_else(|| {
                StoreError::conflict(
                    "hostname-taken",
                    format!("{host} leads elsewhere: delete it there first"),
                )
            })?;
            Ok(Hostname { host: host.clone(), target, service: service.map(str::to_owned), created_at })
        })
        .await
    }

    /// All host names beyond the derived ones.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn hostname_list(&self) -> Result<Vec<Hostname>, StoreError> {
        self.call("hostname_list", async {
            let rows = sqlx::query!(
                "SELECT host, project_id, deployment_id, service, created_at FROM hostnames ORDER BY host"
            )
            .fetch_all(&self.pool)
            .await?;
            rows.into_iter()
                .map(|row| {
                    let target = match (row.project_id, row.deployment_id) {
                        (Some(id), _) => HostnameTarget::Project(ProjectId::from_uuid(id)),
                        (_, Some(id)) => HostnameTarget::Deployment(DeploymentId::from_uuid(id)),
                        (None, None) => {
                            return Err(StoreError::unreadable(format!("{} leads nowhere", row.host)));
                        }
                    };
                    Ok(Hostname { host: row.host, target, service: row.service, created_at: row.created_at })
                })
                .collect()
        })
        .await
    }

    /// Forgets a host name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn hostname_delete(&self, host: &str) -> Result<(), StoreError> {
        self.call("hostname_delete", async {
            let host = host.to_lowercase();
            let done =
                sqlx::query!("DELETE FROM hostnames WHERE host = $1", host).execute(&self.pool).await?;
            if done.rows_affected() == 0 { Err(StoreError::not_found("host name", host)) } else { Ok(()) }
        })
        .await
    }
}
