//! Domains of projects.

use model::{DeploymentId, Domain, ProjectId};
use serde_json::json;
use uuid::Uuid;

use crate::convert::parse;
use crate::error::StoreError;
use crate::event;
use crate::store::Store;
use crate::types::{NewEvent, ProjectDomain};

struct Row {
    domain: String,
    project_id: Uuid,
    deployment_id: Option<Uuid>,
    service: Option<String>,
    created_at: chrono::DateTime<chrono::Utc>,
}

impl TryFrom<Row> for ProjectDomain {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            domain: parse(&row.domain)?,
            project: ProjectId::from_uuid(row.project_id),
            deployment: row.deployment_id.map(DeploymentId::from_uuid),
            service: row.service,
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Leads a domain to a project (its primary deployment) or to one deployment of it. Of a project that has
    /// it already, only the deployment and the service change. Event `domain.added`.
    ///
    /// # Errors
    /// Conflict `domain-taken` where another project, or a host beside the domains, has it;
    /// [`StoreError::NotFound`] for the project, or a deployment that is none of the project's.
    pub async fn domain_add(
        &self,
        project: ProjectId,
        domain: &Domain,
        deployment: Option<DeploymentId>,
        service: Option<&str>,
    ) -> Result<ProjectDomain, StoreError> {
        self.call("domain_add", async {
            let mut tx = self.pool.begin().await?;
            let row = sqlx::query_as!(
                Row,
                "INSERT INTO domains AS d (domain, project_id, deployment_id, service)
                 SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM hostnames WHERE host = $1)
                 ON CONFLICT (domain) DO UPDATE
                    SET deployment_id = excluded.deployment_id, service = excluded.service
                    WHERE d.project_id = excluded.project_id
                 RETURNING domain, project_id, deployment_id, service, created_at",
                domain.as_str(),
                project.uuid(),
                deployment.map(|id| id.uuid()),
                service,
            )
            .fetch_optional(&mut *tx)
            .await
            .map_err(StoreError::from)
            .map_err(|error| match deployment {
                _ if error.violates("domains_project_id_fkey") => StoreError::not_found("project", project),
                Some(id) if error.violates("domains_deployment_id_project_id_fkey") => {
                    StoreError::not_found("deployment of this project", id)
                }
                _ => error,
            })?
            // Never whose it is.
            .ok_or_else(|| {
                StoreError::conflict(
                    "domain-taken",
                    format!("{domain} is in use already: it must be removed there first"),
                )
            })?;
            event::append(
                &mut tx,
                NewEvent {
                    name: "domain.added".to_owned(),
                    project_id: Some(project),
                    deployment_id: deployment,
                    data: event::data([("domain", json!(domain.as_str())), ("service", json!(service))]),
                    ..NewEvent::default()
                },
            )
            .await?;
            tx.commit().await?;
            row.try_into()
        })
        .await
    }

    /// A project's domains, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn domain_list(&self, project: ProjectId) -> Result<Vec<ProjectDomain>, StoreError> {
        self.call("domain_list", async {
            sqlx::query_as!(
                Row,
                "SELECT domain, project_id, deployment_id, service, created_at FROM domains
                 WHERE project_id = $1 ORDER BY domain",
                project.uuid(),
            )
            .fetch_all(&self.pool)
            .await?
            .into_iter()
            .map(ProjectDomain::try_from)
            .collect()
        })
        .await
    }

    /// Takes a domain from its project. Event `domain.removed`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also where another project has it.
    pub async fn domain_remove(&self, project: ProjectId, domain: &Domain) -> Result<(), StoreError> {
        self.call("domain_remove", async {
            let mut tx = self.pool.begin().await?;
            let done = sqlx::query!(
                "DELETE FROM domains WHERE domain = $1 AND project_id = $2",
                domain.as_str(),
                project.uuid(),
            )
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::not_found("domain of this project", domain));
            }
            event::append(
                &mut tx,
                NewEvent {
                    name: "domain.removed".to_owned(),
                    project_id: Some(project),
                    data: event::data([("domain", json!(domain.as_str()))]),
                    ..NewEvent::default()
                },
            )
            .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}
