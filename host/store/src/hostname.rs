//! Host names beyond the derived ones, in two tables that never share a name: whole hosts that operators gave
//! or that are of old, and machines of old. Domains of projects are in `domain`.

use model::{DeploymentId, MachineId, ProjectId};
use uuid::Uuid;

use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Hostname, HostnameTarget, OldMachine};

struct Row {
    host: String,
    project_id: Option<Uuid>,
    deployment_id: Option<Uuid>,
    service: Option<String>,
    created_at: chrono::DateTime<chrono::Utc>,
}

impl From<Row> for Hostname {
    fn from(row: Row) -> Self {
        let target = match (row.project_id, row.deployment_id) {
            // A domain has both where it leads to one deployment.
            (_, Some(id)) => HostnameTarget::Deployment(DeploymentId::from_uuid(id)),
            (Some(id), None) => HostnameTarget::Project(ProjectId::from_uuid(id)),
            (None, None) => HostnameTarget::Gone,
        };
        Self { host: row.host, target, service: row.service, created_at: row.created_at }
    }
}

impl Store {
    /// Every host and domain, for the route table; `*.` in front of wildcards.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn host_route_list(&self) -> Result<Vec<Hostname>, StoreError> {
        self.call("host_route_list", self.host_routes(None)).await
    }

    /// What leads from one host or domain, written as it is registered.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn host_route_get(&self, host: &str) -> Result<Option<Hostname>, StoreError> {
        Ok(self.call("host_route_get", self.host_routes(Some(host))).await?.pop())
    }

    async fn host_routes(&self, host: Option<&str>) -> Result<Vec<Hostname>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT host AS "host!", project_id, deployment_id, service, created_at AS "created_at!" FROM (
                SELECT domain AS host, project_id, deployment_id, service, created_at FROM domains
                UNION ALL SELECT host, project_id, deployment_id, service, created_at FROM hostnames) AS hosts
             WHERE $1::text IS NULL OR host = $1"#,
            host,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Hostname::from).collect())
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
            HostnameTarget::Gone => (None, None),
            HostnameTarget::Project(id) => (Some(id.uuid()), None),
            HostnameTarget::Deployment(id) => (None, Some(id.uuid())),
        };
        self.call("hostname_put", async {
            let created_at = sqlx::query_scalar!(
                "INSERT INTO hostnames AS h (host, project_id, deployment_id, service)
                 SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM domains WHERE domain = $1)
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
                        HostnameTarget::Gone => error,
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
            let rows = sqlx::query_as!(
                Row,
                "SELECT host, project_id, deployment_id, service, created_at FROM hostnames ORDER BY host"
            )
            .fetch_all(&self.pool)
            .await?;
            Ok(rows.into_iter().map(Hostname::from).collect())
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

    /// Says what has taken the place of a machine of old, or that it is gone.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the deployment.
    pub async fn old_machine_put(&self, machine: OldMachine) -> Result<(), StoreError> {
        self.call("old_machine_put", async {
            sqlx::query!(
                "INSERT INTO old_machines (id, deployment_id) VALUES ($1, $2)
                 ON CONFLICT (id) DO UPDATE SET deployment_id = excluded.deployment_id",
                machine.machine.uuid(),
                machine.deployment.map(|id| id.uuid()),
            )
            .execute(&self.pool)
            .await
            .map_err(StoreError::from)
            .map_err(|error| match machine.deployment {
                Some(id) if error.violates("old_machines_deployment_id_fkey") => {
                    StoreError::not_found("deployment", id)
                }
                _ => error,
            })?;
            Ok(())
        })
        .await
    }

    /// All machines of old.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn old_machine_list(&self) -> Result<Vec<OldMachine>, StoreError> {
        self.call("old_machine_list", async {
            let rows =
                sqlx::query!("SELECT id, deployment_id FROM old_machines").fetch_all(&self.pool).await?;
            let read = |(id, deployment): (Uuid, Option<Uuid>)| OldMachine {
                machine: MachineId::from_uuid(id),
                deployment: deployment.map(DeploymentId::from_uuid),
            };
            Ok(rows.into_iter().map(|row| read((row.id, row.deployment_id))).collect())
        })
        .await
    }

    /// One machine of old; none where it was never heard of.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn old_machine_get(&self, machine: MachineId) -> Result<Option<OldMachine>, StoreError> {
        self.call("old_machine_get", async {
            let row = sqlx::query!("SELECT deployment_id FROM old_machines WHERE id = $1", machine.uuid())
                .fetch_optional(&self.pool)
                .await?;
            Ok(row.map(|row| OldMachine {
                machine,
                deployment: row.deployment_id.map(DeploymentId::from_uuid),
            }))
        })
        .await
    }

    /// Forgets a machine of old. Again is success.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn old_machine_delete(&self, machine: MachineId) -> Result<(), StoreError> {
        self.call("old_machine_delete", async {
            sqlx::query!("DELETE FROM old_machines WHERE id = $1", machine.uuid())
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}
