//! Projects, and which of their deployments is primary.

use std::time::Duration;

use model::{DeploymentId, ProjectId, Slug};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::convert::{parse, seconds};
use crate::error::StoreError;
use crate::event;
use crate::page::{Page, PageRequest};
use crate::store::Store;
use crate::types::{NewEvent, Project};

struct ProjectRow {
    id: Uuid,
    slug: String,
    primary_deployment_id: Option<Uuid>,
    created_at: chrono::DateTime<chrono::Utc>,
}

impl TryFrom<ProjectRow> for Project {
    type Error = StoreError;

    fn try_from(row: ProjectRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: ProjectId::from_uuid(row.id),
            slug: parse(&row.slug)?,
            primary_deployment_id: row.primary_deployment_id.map(DeploymentId::from_uuid),
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Makes a project. Event `project.created`.
    ///
    /// # Errors
    /// Conflict `slug-taken`.
    pub async fn project_create(&self, slug: &Slug) -> Result<Project, StoreError> {
        self.call("project_create", async {
            let id = ProjectId::new();
            let mut tx = self.pool.begin().await?;
            let row = sqlx::query_as!(
                ProjectRow,
                "INSERT INTO projects (id, slug) VALUES ($1, $2)
                 RETURNING id, slug, primary_deployment_id, created_at",
                id.uuid(),
                slug.as_str(),
            )
            .fetch_one(&mut *tx)
            .await
            .map_err(StoreError::from)
            .map_err(|error| {
                if error.violates("projects_slug_key") {
                    StoreError::conflict(
                        "slug-taken",
                        format!("a project named {slug} exists: choose another name"),
                    )
                } else {
                    error
                }
            })?;
            event::append(
                &mut tx,
                NewEvent {
                    name: "project.created".to_owned(),
                    project_id: Some(id),
                    data: event::data([("slug", json!(slug))]),
                    ..NewEvent::default()
                },
            )
            .await?;
            tx.commit().await?;
            row.try_into()
        })
        .await
    }

    /// The project of this id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn project_get(&self, id: ProjectId) -> Result<Project, StoreError> {
        self.call("project_get", async { get(&mut *self.pool.acquire().await?, id).await }).await
    }

    /// The project of this name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn project_by_slug(&self, slug: &Slug) -> Result<Project, StoreError> {
        self.call("project_by_slug", async {
            sqlx::query_as!(
                ProjectRow,
                "SELECT id, slug, primary_deployment_id, created_at FROM projects WHERE slug = $1",
                slug.as_str(),
            )
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::not_found("project", slug))?
            .try_into()
        })
        .await
    }

    /// Projects, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn project_list(&self, page: PageRequest) -> Result<Page<Project>, StoreError> {
        self.call("project_list", async {
            let rows = sqlx::query_as!(
                ProjectRow,
                "SELECT id, slug, primary_deployment_id, created_at FROM projects
                 WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2",
                page.after.map(|cursor| cursor.0),
                page.probe(),
            )
            .fetch_all(&self.pool)
            .await?;
            let items = rows.into_iter().map(Project::try_from).collect::<Result<_, _>>()?;
            Ok(page.page(items, |project: &Project| project.id.uuid()))
        })
        .await
    }

    /// Deletes a project with its destroyed deployments and its host names. Event `project.deleted`.
    ///
    /// # Errors
    /// Conflict `project-in-use` while a deployment of it is not destroyed; [`StoreError::NotFound`].
    pub async fn project_delete(&self, id: ProjectId) -> Result<(), StoreError> {
        self.call("project_delete", async {
            let mut tx = self.pool.begin().await?;
            let slug = sqlx::query_scalar!("SELECT slug FROM projects WHERE id = $1 FOR UPDATE", id.uuid())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or_else(|| StoreError::not_found("project", id))?;
            let live = sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM deployments WHERE project_id = $1 AND seen_state <> 'destroyed'"#,
                id.uuid(),
            )
            .fetch_one(&mut *tx)
            .await?;
            if live > 0 {
                return Err(StoreError::conflict(
                    "project-in-use",
                    format!("{slug} has {live} deployments that are not destroyed: destroy them first"),
                ));
            }
            sqlx::query!("DELETE FROM deployments WHERE project_id = $1", id.uuid()).execute(&mut *tx).await?;
            sqlx::query!("DELETE FROM projects WHERE id = $1", id.uuid()).execute(&mut *tx).await?;
            event::append(
                &mut tx,
                NewEvent {
                    name: "project.deleted".to_owned(),
                    project_id: Some(id),
                    data: event::data([("slug", json!(slug))]),
                    ..NewEvent::default()
                },
            )
            .await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Makes a deployment its project's primary; the one before is destroyed after `grace`. Again is success
    /// and changes nothing. Event `project.primary-changed`.
    ///
    /// # Errors
    /// Conflict `other-project` or `destroyed`; [`StoreError::NotFound`].
    pub async fn project_set_primary(
        &self,
        project: ProjectId,
        deployment: DeploymentId,
        grace: Duration,
    ) -> Result<Project, StoreError> {
        self.call("project_set_primary", async {
            let mut tx = self.pool.begin().await?;
            let before = lock(&mut tx, project).await?;
            let row = sqlx::query!(
                "SELECT project_id, wanted_state FROM deployments WHERE id = $1 FOR NO KEY UPDATE",
                deployment.uuid(),
            )
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| StoreError::not_found("deployment", deployment))?;
            if row.project_id != project.uuid() {
                return Err(StoreError::conflict(
                    "other-project",
                    format!("{deployment} belongs to another project"),
                ));
            }
            if row.wanted_state == "destroyed" {
                return Err(StoreError::destroyed(deployment));
            }
            if before != Some(deployment) {
                let changed = set_primary(&mut tx, project, before, deployment, grace).await?;
                event::append(&mut tx, changed).await?;
            }
            let project = get(&mut tx, project).await?;
            tx.commit().await?;
            Ok(project)
        })
        .await
    }
}

async fn get(connection: &mut PgConnection, id: ProjectId) -> Result<Project, StoreError> {
    sqlx::query_as!(
        ProjectRow,
        "SELECT id, slug, primary_deployment_id, created_at FROM projects WHERE id = $1",
        id.uuid(),
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::not_found("project", id))?
    .try_into()
}

/// Locks the project; gives its primary. Comes before any lock on a deployment of it.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    id: ProjectId,
) -> Result<Option<DeploymentId>, StoreError> {
    let primary = sqlx::query_scalar!(
        "SELECT primary_deployment_id FROM projects WHERE id = $1 FOR NO KEY UPDATE",
        id.uuid()
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::not_found("project", id))?;
    Ok(primary.map(DeploymentId::from_uuid))
}

/// Under the project's lock. Gives the event to write at the end.
pub(crate) async fn set_primary(
    connection: &mut PgConnection,
    project: ProjectId,
    before: Option<DeploymentId>,
    deployment: DeploymentId,
    grace: Duration,
) -> Result<NewEvent, StoreError> {
    sqlx::query!(
        "UPDATE deployments SET expires_at = now() + make_interval(secs => $2)
         WHERE id = $1 AND wanted_state <> 'destroyed'",
        before.map(|id| id.uuid()),
        seconds(grace),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE deployments SET expires_at = NULL, promote_when_healthy = false WHERE id = $1",
        deployment.uuid(),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE projects SET primary_deployment_id = $2 WHERE id = $1",
        project.uuid(),
        deployment.uuid(),
    )
    .execute(&mut *connection)
    .await?;
    Ok(NewEvent {
        name: "project.primary-changed".to_owned(),
        project_id: Some(project),
        deployment_id: Some(deployment),
        data: event::data([("previous", json!(before))]),
        ..NewEvent::default()
    })
}
