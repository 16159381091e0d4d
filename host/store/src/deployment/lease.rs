//! Leases on deployments, and the operations begun under them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use model::{DeploymentId, Fence, OperationKind};
use sqlx::PgConnection;
use uuid::Uuid;

use super::get;
use super::row::deployment_query;
use crate::convert::{bounded, count, number, seconds};
use crate::error::StoreError;
use crate::event;
use crate::store::Store;
use crate::types::{Deployment, Lease, Leased, NewEvent};

impl Store {
    /// Takes leases on deployments that are due and in nobody's hands, longest due first, at most `limit`.
    /// Several hosts that ask at once get different ones. `holder`: this host's own id, new at each start.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deployment_lease_due(
        &self,
        holder: Uuid,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Leased>, StoreError> {
        self.call("deployment_lease_due", async {
            let mut tx = self.pool.begin().await?;
            let taken = sqlx::query!(
                r#"WITH due AS (
                    SELECT id, next_action_at FROM deployments
                    WHERE seen_state <> 'destroyed' AND next_action_at <= now()
                        AND (lease_until IS NULL OR lease_until < now())
                    ORDER BY next_action_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
                )
                UPDATE deployments d SET lease_holder = $1, lease_epoch = d.lease_epoch + 1,
                    lease_until = now() + make_interval(secs => $2)
                FROM due WHERE d.id = due.id
                RETURNING d.id AS "id!", d.lease_epoch AS "epoch!", d.lease_until AS "until!",
                    due.next_action_at AS "next_due!""#,
                holder,
                seconds(lease),
                bounded(limit),
            )
            .fetch_all(&mut *tx)
            .await?;
            if taken.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<Uuid> = taken.iter().map(|row| row.id).collect();
            let rows = deployment_query!("WHERE d.id = ANY($1)", &ids).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            let mut leased = Vec::with_capacity(taken.len());
            for row in rows {
                let deployment = Deployment::try_from(row)?;
                let Some(taken) = taken.iter().find(|taken| taken.id == deployment.id.uuid()) else {
                    continue;
                };
                leased.push(Leased {
                    lease: Lease {
                        deployment: deployment.id,
                        holder,
                        epoch: count(taken.epoch),
                        until: taken.until,
                    },
                    operation: deployment.current_operation,
                    failures: deployment.failures,
                    last_error: deployment.last_error.clone(),
                    next_due: taken.next_due,
                    deployment,
                });
            }
            leased.sort_by_key(|leased| leased.next_due);
            Ok(leased)
        })
        .await
    }

    /// When [`deployment_lease_due`](Self::deployment_lease_due) or
    /// [`deployment_expire_due`](Self::deployment_expire_due) will next have something to do, by the database's
    /// clock; none: not before something changes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deployment_next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.call("deployment_next_due", async {
            Ok(sqlx::query_scalar!(
                "SELECT least(
                    (SELECT min(greatest(next_action_at, lease_until)) FROM deployments
                        WHERE seen_state <> 'destroyed' AND next_action_at < '9000-01-01Z'),
                    (SELECT min(d.expires_at) FROM deployments d JOIN projects p ON p.id = d.project_id
                        WHERE d.wanted_state <> 'destroyed' AND p.primary_deployment_id IS DISTINCT FROM d.id))",
            )
            .fetch_one(&self.pool)
            .await?)
        })
        .await
    }

    /// Lengthens a lease from now on, also one that ran out where nobody took it since.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]
    pub async fn deployment_lease_renew(
        &self,
        lease: &Lease,
        duration: Duration,
    ) -> Result<Lease, StoreError> {
        self.call("deployment_lease_renew", async {
            let until = sqlx::query_scalar!(
                r#"UPDATE deployments SET lease_until = now() + make_interval(secs => $4)
                 WHERE id = $1 AND lease_holder = $2 AND lease_epoch = $3 RETURNING lease_until AS "until!""#,
                lease.deployment.uuid(),
                lease.holder,
                number(lease.epoch),
                seconds(duration),
            )
            .fetch_optional(&self.pool)
            .await?
            .ok_or(StoreError::LeaseLost)?;
            Ok(Lease { until, ..*lease })
        })
        .await
    }

    /// Gives a lease back: the deployment may be taken by anybody at once.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]
    pub async fn deployment_release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.call("deployment_release", async {
            let done = sqlx::query!(
                "UPDATE deployments SET lease_holder = NULL, lease_until = NULL
                 WHERE id = $1 AND lease_holder = $2 AND lease_epoch = $3",
                lease.deployment.uuid(),
                lease.holder,
                number(lease.epoch),
            )
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 0 { Err(StoreError::LeaseLost) } else { Ok(()) }
        })
        .await
    }

    /// Gives all leases of a holder back, when its host ends in order; gives how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deployment_release_all(&self, holder: Uuid) -> Result<u64, StoreError> {
        self.call("deployment_release_all", async {
            let done = sqlx::query!(
                "UPDATE deployments SET lease_holder = NULL, lease_until = NULL WHERE lease_holder = $1",
                holder,
            )
            .execute(&self.pool)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Writes down that an operation begins, before anything of it is done: whoever holds the lease next finds it,
    /// and repeats it under the same fence. Replaces one that was under way. This is its first try.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Superseded`] where the row is not at this generation any more or
    /// has not come to this incarnation.
    pub async fn operation_begin(
        &self,
        lease: &Lease,
        kind: OperationKind,
        generation: u64,
        incarnation: u64,
    ) -> Result<Fence, StoreError> {
        self.call("operation_begin", async {
            let mut tx = self.pool.begin().await?;
            let row = lock(&mut tx, lease).await?;
            if row.generation != number(generation) || number(incarnation) > row.wanted_incarnation {
                return Err(StoreError::Superseded);
            }
            let operation = sqlx::query_scalar!(
                "UPDATE deployments SET operation = operation + 1, operation_kind = $2, operation_generation = $3,
                    operation_incarnation = $4, operation_started_at = now(), operation_tries = 1
                 WHERE id = $1 RETURNING operation",
                lease.deployment.uuid(),
                kind.as_str(),
                number(generation),
                number(incarnation),
            )
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Fence { deployment: lease.deployment, generation, incarnation, operation: count(operation) })
        })
        .await
    }

    /// Wants the next incarnation, where the present one has ended by itself. What is wanted stays the same, so the
    /// generation does too; what was under way is over. Event `deployment.incarnation-ended`.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Superseded`] where what is wanted changed since `generation`.
    pub async fn incarnation_next(&self, lease: &Lease, generation: u64) -> Result<Deployment, StoreError> {
        self.call("incarnation_next", async {
            let mut tx = self.pool.begin().await?;
            let row = lock(&mut tx, lease).await?;
            if row.generation != number(generation) || row.wanted_state != "running" {
                return Err(StoreError::Superseded);
            }
            sqlx::query!(
                "UPDATE deployments SET wanted_incarnation = wanted_incarnation + 1, operation_kind = NULL,
                    operation_generation = NULL, operation_incarnation = NULL, operation_started_at = NULL,
                    operation_tries = 0
                 WHERE id = $1",
                lease.deployment.uuid(),
            )
            .execute(&mut *tx)
            .await?;
            let deployment = get(&mut tx, lease.deployment).await?;
            let event = NewEvent {
                name: "deployment.incarnation-ended".to_owned(),
                project_id: Some(deployment.project_id),
                deployment_id: Some(deployment.id),
                incarnation: Some(deployment.seen_incarnation),
                ..NewEvent::default()
            };
            event::append(&mut tx, event).await?;
            tx.commit().await?;
            Ok(deployment)
        })
        .await
    }

    /// Says when to look again; none: only when something changes. Where what is wanted changed since `generation`:
    /// at once.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]
    pub async fn deployment_schedule(
        &self,
        lease: &Lease,
        generation: u64,
        next_action_in: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.call("deployment_schedule", async {
            let done = sqlx::query!(
                "UPDATE deployments SET next_action_at = CASE
                    WHEN generation > $4 THEN now()
                    WHEN $5::float8 IS NULL THEN '9999-01-01Z'
                    ELSE now() + make_interval(secs => $5) END
                 WHERE id = $1 AND lease_holder = $2 AND lease_epoch = $3",
                lease.deployment.uuid(),
                lease.holder,
                number(lease.epoch),
                number(generation),
                next_action_in.map(seconds),
            )
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 0 { Err(StoreError::LeaseLost) } else { Ok(()) }
        })
        .await
    }

    /// Counts another try of the operation under way; gives the count, 2 for the second.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; Conflict `no-operation` where none is under way.
    pub async fn operation_try(&self, lease: &Lease) -> Result<i32, StoreError> {
        self.call("operation_try", async {
            let mut tx = self.pool.begin().await?;
            lock(&mut tx, lease).await?;
            let tries = sqlx::query_scalar!(
                "UPDATE deployments SET operation_tries = operation_tries + 1
                 WHERE id = $1 AND operation_kind IS NOT NULL RETURNING operation_tries",
                lease.deployment.uuid(),
            )
            .fetch_optional(&mut *tx)
            .await?
            .ok_or_else(|| {
                StoreError::conflict("no-operation", "no operation is under way: begin one first")
            })?;
            tx.commit().await?;
            Ok(tries)
        })
        .await
    }

    /// Keeps the adapter's own words for where the deployment is.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]
    pub async fn deployment_set_locator(
        &self,
        lease: &Lease,
        locator: Option<&str>,
    ) -> Result<(), StoreError> {
        self.call("deployment_set_locator", async {
            let done = sqlx::query!(
                "UPDATE deployments SET locator = $4 WHERE id = $1 AND lease_holder = $2 AND lease_epoch = $3",
                lease.deployment.uuid(),
                lease.holder,
                number(lease.epoch),
                locator,
            )
            .execute(&self.pool)
            .await?;
            if done.rows_affected() == 0 { Err(StoreError::LeaseLost) } else { Ok(()) }
        })
        .await
    }

    /// Wants replaced primaries destroyed whose time of grace is over; gives which. Event `deployment.expired`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deployment_expire_due(&self) -> Result<Vec<DeploymentId>, StoreError> {
        self.call("deployment_expire_due", async {
            let mut tx = self.pool.begin().await?;
            let rows = sqlx::query!(
                r#"WITH due AS (
                    SELECT d.id FROM deployments d JOIN projects p ON p.id = d.project_id
                    WHERE d.expires_at < now() AND d.wanted_state <> 'destroyed'
                        AND p.primary_deployment_id IS DISTINCT FROM d.id
                    FOR NO KEY UPDATE OF d SKIP LOCKED
                )
                UPDATE deployments d SET wanted_state = 'destroyed', generation = d.generation + 1, expires_at = NULL,
                    promote_when_healthy = false, stop_reason = NULL, stop_after = NULL, failures = 0, last_error = NULL,
                    next_action_at = now()
                FROM due WHERE d.id = due.id
                RETURNING d.id AS "id!", d.project_id AS "project_id!", d.wanted_incarnation AS "incarnation!""#,
            )
            .fetch_all(&mut *tx)
            .await?;
            let mut expired = Vec::with_capacity(rows.len());
            for row in rows {
                let id = DeploymentId::from_uuid(row.id);
                let event = NewEvent {
                    name: "deployment.expired".to_owned(),
                    project_id: Some(model::ProjectId::from_uuid(row.project_id)),
                    deployment_id: Some(id),
                    incarnation: Some(count(row.incarnation)),
                    ..NewEvent::default()
                };
                event::append(&mut tx, event).await?;
                expired.push(id);
            }
            tx.commit().await?;
            Ok(expired)
        })
        .await
    }
}

/// What the holder of a lease has locked.
pub(crate) struct LeasedRow {
    pub project_id: Uuid,
    pub wanted_state: String,
    pub wanted_incarnation: i64,
    pub generation: i64,
    pub seen_state: String,
    pub seen_incarnation: i64,
    pub seen_generation: i64,
    pub health: String,
    pub promote_when_healthy: bool,
}

/// Locks the deployment for the rest of the transaction, where the lease still holds.
pub(crate) async fn lock(connection: &mut PgConnection, lease: &Lease) -> Result<LeasedRow, StoreError> {
    sqlx::query_as!(
        LeasedRow,
        "SELECT project_id, wanted_state, wanted_incarnation, generation, seen_state, seen_incarnation,
            seen_generation, health, promote_when_healthy
         FROM deployments WHERE id = $1 AND lease_holder = $2 AND lease_epoch = $3 FOR NO KEY UPDATE",
        lease.deployment.uuid(),
        lease.holder,
        number(lease.epoch),
    )
    .fetch_optional(connection)
    .await?
    .ok_or(StoreError::LeaseLost)
}
