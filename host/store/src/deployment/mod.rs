//! Deployments: made, read, wanted, leased, observed.

mod idle;
mod lease;
mod observe;
mod row;
mod want;

use model::{DeploymentId, Wanted};
use serde_json::json;

use crate::error::StoreError;
use crate::event;
use crate::page::{Page, PageRequest};
use crate::store::Store;
use crate::types::{Deployment, DeploymentFilter, NewDeployment, NewEvent};

pub(crate) use lease::lock as lock_leased;
use row::deployment_query;
pub(crate) use row::services;

impl Store {
    /// Makes a deployment, due at once. Event `deployment.created`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the project; Conflict `source-missing` (not recorded), `duplicate-service`
    /// (name or port), `invalid-service`, `invalid-idle-timeout`, `invalid-wanted` (made to be destroyed).
    pub async fn deployment_create(&self, new: NewDeployment) -> Result<Deployment, StoreError> {
        if new.wanted == Wanted::Destroyed {
            return Err(StoreError::conflict(
                "invalid-wanted",
                "a deployment can't be made to be destroyed: `running` or `stopped`",
            ));
        }
        self.call("deployment_create", async {
            let id = DeploymentId::new();
            let mut tx = self.pool.begin().await?;
            sqlx::query!(
                "INSERT INTO deployments
                    (id, project_id, runtime_type, spec, source_sha256, wake_policy, promote_when_healthy, wanted_state,
                     idle_timeout_seconds)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                id.uuid(),
                new.project_id.uuid(),
                new.runtime_type.as_str(),
                new.spec,
                new.source_sha256,
                new.wake_policy.as_str(),
                new.promote_when_healthy,
                new.wanted.as_str(),
                new.idle_timeout_seconds.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
            )
            .execute(&mut *tx)
            .await
            .map_err(StoreError::from)
            .map_err(|error| {
                if error.violates("deployments_project_id_fkey") {
                    StoreError::not_found("project", new.project_id)
                } else if error.violates("deployments_source_sha256_fkey") {
                    StoreError::conflict("source-missing", "the source is not here: upload it first")
                } else if error.violates("deployments_idle_timeout_seconds_check") {
                    StoreError::conflict("invalid-idle-timeout", "an idle time-out has 5 to 31536000 seconds")
                } else {
                    error
                }
            })?;
            for (position, service) in (0_i16..).zip(&new.services) {
                sqlx::query!(
                    "INSERT INTO services (deployment_id, position, name, port, scheme) VALUES ($1, $2, $3, $4, $5)",
                    id.uuid(),
                    position,
                    service.name.as_str(),
                    i32::from(service.port),
                    service.scheme.as_str(),
                )
                .execute(&mut *tx)
                .await
                .map_err(StoreError::from)
                .map_err(|error| {
                    if error.violates("services_pkey") || error.violates("services_deployment_id_port_key") {
                        StoreError::conflict(
                            "duplicate-service",
                            format!("the service {} on port {} is there twice", service.name, service.port),
                        )
                    } else if error.violates("services_port_check") {
                        StoreError::conflict("invalid-service", format!("{} has port 0: give 1 to 65535", service.name))
                    } else {
                        error
                    }
                })?;
            }
            let deployment = get(&mut tx, id).await?;
            event::append(
                &mut tx,
                NewEvent {
                    name: "deployment.created".to_owned(),
                    project_id: Some(new.project_id),
                    deployment_id: Some(id),
                    data: event::data([
                        ("runtimeType", json!(new.runtime_type)),
                        ("wanted", json!(new.wanted)),
                    ]),
                    ..NewEvent::default()
                },
            )
            .await?;
            tx.commit().await?;
            Ok(deployment)
        })
        .await
    }

    /// The deployment of this id, destroyed ones too.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn deployment_get(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        self.call("deployment_get", async { get(&mut *self.pool.acquire().await?, id).await }).await
    }

    /// Deployments, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deployment_list(
        &self,
        filter: DeploymentFilter,
        page: PageRequest,
    ) -> Result<Page<Deployment>, StoreError> {
        self.call("deployment_list", async {
            let rows = deployment_query!(
                "WHERE ($1::uuid IS NULL OR d.project_id = $1)
                   AND ($2 OR d.seen_state <> 'destroyed')
                   AND ($3::uuid IS NULL OR d.id < $3)
                 ORDER BY d.id DESC LIMIT $4",
                filter.project.map(|id| id.uuid()),
                filter.include_destroyed,
                page.after.map(|cursor| cursor.0),
                page.probe(),
            )
            .fetch_all(&self.pool)
            .await?;
            let items = rows.into_iter().map(Deployment::try_from).collect::<Result<_, _>>()?;
            Ok(page.page(items, |deployment: &Deployment| deployment.id.uuid()))
        })
        .await
    }
}

async fn get(connection: &mut sqlx::PgConnection, id: DeploymentId) -> Result<Deployment, StoreError> {
    deployment_query!("WHERE d.id = $1", id.uuid())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::not_found("deployment", id))?
        .try_into()
}
