//! What goes on at deployments, and stops of those at which nothing does.
//!
//! A stop is announced before it is made: wanted from then on, but not begun for a while. Every host hears of
//! it and holds what comes anew, and reports what was on its way; whatever went on after all calls it off, and
//! the deployment runs on as it is.

use std::time::Duration;

use model::{DeploymentId, ProjectId};
use serde_json::json;
use uuid::Uuid;

use crate::convert::{count, seconds};
use crate::error::StoreError;
use crate::event;
use crate::store::Store;
use crate::types::{DeploymentActivity, IdleSweep, NewEvent};

impl Store {
    /// Writes what goes on at deployments, as one run of a host sees it. Those without an idle time-out are left
    /// out; nothing goes back in time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn activity_report(
        &self,
        host: Uuid,
        activity: &[DeploymentActivity],
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = activity.iter().map(|activity| activity.deployment.uuid()).collect();
        let open: Vec<i32> =
            activity.iter().map(|activity| i32::try_from(activity.open).unwrap_or(i32::MAX)).collect();
        let idle: Vec<f64> = activity.iter().map(|activity| seconds(activity.idle_for)).collect();
        self.call("activity_report", async {
            sqlx::query!(
                "INSERT INTO deployment_activity (deployment_id, host_id, open_count, last_active_at, reported_at)
                 SELECT d.id, $1, a.open_count, now() - make_interval(secs => a.idle_seconds), now()
                 FROM UNNEST($2::uuid[], $3::int4[], $4::float8[]) AS a (id, open_count, idle_seconds)
                    JOIN deployments d ON d.id = a.id
                 WHERE d.idle_timeout_seconds IS NOT NULL AND d.seen_state <> 'destroyed'
                 ON CONFLICT (deployment_id, host_id) DO UPDATE SET open_count = excluded.open_count,
                    last_active_at = greatest(deployment_activity.last_active_at, excluded.last_active_at),
                    reported_at = excluded.reported_at",
                host,
                &ids,
                &open,
                &idle,
            )
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    /// Wants stopped what is idle (not before `window` has passed), and running again what was to be stopped for
    /// that and is not idle after all. Events `deployment.idle-stop-requested`, `deployment.idle-stop-cancelled`.
    ///
    /// `window`: longer than hosts take to report activity.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deployment_idle_sweep(&self, window: Duration) -> Result<IdleSweep, StoreError> {
        self.call("deployment_idle_sweep", async {
            let mut tx = self.pool.begin().await?;
            let kept = sqlx::query!(
                r#"WITH busy AS (
                    SELECT id FROM deployments
                    WHERE stop_reason = 'idle' AND seen_state = 'running' AND seen_incarnation = wanted_incarnation
                        AND operation_kind IS NULL
                        AND NOT is_idle(id, coalesce(running_at, created_at), idle_timeout_seconds)
                    FOR NO KEY UPDATE SKIP LOCKED
                )
                UPDATE deployments d SET wanted_state = 'running', stop_reason = NULL, stop_after = NULL,
                    generation = d.generation + 1, next_action_at = now()
                FROM busy WHERE d.id = busy.id
                RETURNING d.id AS "id!", d.project_id AS "project_id!", d.seen_incarnation AS "incarnation!""#,
            )
            .fetch_all(&mut *tx)
            .await?;
            let stopped = sqlx::query!(
                r#"WITH idle AS (
                    SELECT id FROM deployments
                    WHERE idle_timeout_seconds IS NOT NULL AND wanted_state = 'running' AND seen_state = 'running'
                        AND seen_incarnation = wanted_incarnation AND operation_kind IS NULL
                        AND NOT promote_when_healthy
                        AND is_idle(id, coalesce(running_at, created_at), idle_timeout_seconds)
                    FOR NO KEY UPDATE SKIP LOCKED
                )
                UPDATE deployments d SET wanted_state = 'stopped', stop_reason = 'idle',
                    stop_after = now() + make_interval(secs => $1), generation = d.generation + 1, failures = 0,
                    last_error = NULL, next_action_at = now()
                FROM idle WHERE d.id = idle.id
                RETURNING d.id AS "id!", d.project_id AS "project_id!", d.seen_incarnation AS "incarnation!",
                    d.idle_timeout_seconds AS "idle_timeout_seconds!""#,
                seconds(window),
            )
            .fetch_all(&mut *tx)
            .await?;
            // Of hosts that are long gone.
            sqlx::query!(
                "DELETE FROM deployment_activity a USING deployments d
                 WHERE d.id = a.deployment_id AND a.reported_at + interval '1 hour' < now()
                    AND (d.seen_state = 'destroyed'
                        OR a.last_active_at + make_interval(secs => d.idle_timeout_seconds) < now())"
            )
            .execute(&mut *tx)
            .await?;
            let mut sweep = IdleSweep::default();
            for row in kept {
                let id = DeploymentId::from_uuid(row.id);
                let event = NewEvent {
                    name: "deployment.idle-stop-cancelled".to_owned(),
                    project_id: Some(ProjectId::from_uuid(row.project_id)),
                    deployment_id: Some(id),
                    incarnation: Some(count(row.incarnation)),
                    ..NewEvent::default()
                };
                event::append(&mut tx, event).await?;
                sweep.kept.push(id);
            }
            for row in stopped {
                let id = DeploymentId::from_uuid(row.id);
                let event = NewEvent {
                    name: "deployment.idle-stop-requested".to_owned(),
                    project_id: Some(ProjectId::from_uuid(row.project_id)),
                    deployment_id: Some(id),
                    incarnation: Some(count(row.incarnation)),
                    data: event::data([("idleTimeoutSeconds", json!(row.idle_timeout_seconds))]),
                    ..NewEvent::default()
                };
                event::append(&mut tx, event).await?;
                sweep.stopped.push(id);
            }
            tx.commit().await?;
            Ok(sweep)
        })
        .await
    }
}
