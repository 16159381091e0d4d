//! What the user wants of a deployment. Each change counts the generation up and makes it due at once.

use model::{DeploymentId, ProjectId, Seen, WakePolicy, Wanted};
use serde_json::json;

use super::get;
use crate::convert::{count, number, parse};
use crate::error::StoreError;
use crate::event;
use crate::store::Store;
use crate::types::{Deployment, NewEvent};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Start,
    Stop,
    Restart,
    Destroy { force: bool },
    Wake,
}

/// What decides.
#[derive(Debug, Clone, Copy)]
struct Standing {
    wanted: Wanted,
    wanted_incarnation: u64,
    generation: u64,
    seen: Seen,
    seen_incarnation: u64,
    seen_generation: u64,
    operation: u64,
    force_destroy: bool,
    wake_policy: WakePolicy,
    /// It is to be stopped for being idle, and that has not begun: it runs on as it is, if it is wanted now.
    stops_soon: bool,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    wanted: Wanted,
    incarnation: u64,
    force: bool,
    event: &'static str,
}

/// None: it is so already.
fn decide(id: DeploymentId, now: &Standing, want: Want) -> Result<Option<Change>, StoreError> {
    if let Want::Destroy { force } = want {
        let already = now.wanted == Wanted::Destroyed && (now.force_destroy || !force);
        let change = Change {
            wanted: Wanted::Destroyed,
            incarnation: now.wanted_incarnation,
            force: force || now.force_destroy,
            event: "deployment.destroy-requested",
        };
        return Ok((!already && now.seen != Seen::Destroyed).then_some(change));
    }
    if now.wanted == Wanted::Destroyed || now.seen == Seen::Destroyed {
        return Err(StoreError::destroyed(id));
    }
    // The first start of all is the incarnation that the row was made with; once a start may have been
    // begun, the next one is another.
    let next = if now.stops_soon || (now.operation == 0 && now.seen == Seen::Created) {
        now.wanted_incarnation
    } else {
        now.wanted_incarnation + 1
    };
    let start = Change {
        wanted: Wanted::Running,
        incarnation: next,
        force: false,
        event: "deployment.start-requested",
    };
    Ok(match want {
        Want::Stop => (now.wanted != Wanted::Stopped).then_some(Change {
            wanted: Wanted::Stopped,
            incarnation: now.wanted_incarnation,
            force: false,
            event: "deployment.stop-requested",
        }),
        Want::Restart => Some(Change {
            incarnation: now.wanted_incarnation + 1,
            event: "deployment.restart-requested",
            ..start
        }),
        Want::Wake if !now.wake_policy.wakes() && now.wanted != Wanted::Running => {
            return Err(StoreError::conflict(
                "not-wakeable",
                format!("{id} is stopped, and requests don't start it: its wake policy is `none`"),
            ));
        }
        Want::Wake => {
            (now.wanted != Wanted::Running).then_some(Change { event: "deployment.wake-requested", ..start })
        }
        // What has failed for good is tried anew; what is being tried is left alone.
        Want::Start => {
            let failed = now.seen == Seen::Failed
                && now.seen_incarnation == now.wanted_incarnation
                && now.seen_generation == now.generation;
            (now.wanted != Wanted::Running || failed).then_some(start)
        }
        Want::Destroy { .. } => None,
    })
}

impl Store {
    /// Changes what is wanted; gives the deployment as it then is. Asking for what is wanted already changes
    /// nothing, but a start of what has failed is a new try. Events `deployment.start-requested`,
    /// `.stop-requested`, `.destroy-requested`.
    ///
    /// `expected_generation`: refuse where something changed since it was read.
    ///
    /// # Errors
    /// Conflict `destroyed` (final), `generation-mismatch`; [`StoreError::NotFound`].
    pub async fn deployment_want(
        &self,
        id: DeploymentId,
        wanted: Wanted,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        let want = match wanted {
            Wanted::Running => Want::Start,
            Wanted::Stopped => Want::Stop,
            Wanted::Destroyed => Want::Destroy { force: false },
        };
        self.call("deployment_want", self.want(id, want, expected_generation)).await
    }

    /// As [`deployment_want`](Self::deployment_want) with `destroyed`; with `force` even where the adapter or the
    /// machine can't be asked any more.
    ///
    /// # Errors
    /// As there.
    pub async fn deployment_destroy(
        &self,
        id: DeploymentId,
        force: bool,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        self.call("deployment_destroy", self.want(id, Want::Destroy { force }, expected_generation)).await
    }

    /// Wants it running in a new incarnation. Each call is another restart. Event `deployment.restart-requested`.
    ///
    /// # Errors
    /// As [`deployment_want`](Self::deployment_want).
    pub async fn deployment_restart(
        &self,
        id: DeploymentId,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        self.call("deployment_restart", self.want(id, Want::Restart, expected_generation)).await
    }

    /// Starts a stopped deployment for a request: once for all who ask. Event `deployment.wake-requested`.
    ///
    /// # Errors
    /// Conflict `not-wakeable` or `destroyed`; [`StoreError::NotFound`].
    pub async fn deployment_wake(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        self.call("deployment_wake", async {
            // Most who ask come second: they need no lock.
            let deployment = get(&mut *self.pool.acquire().await?, id).await?;
            if deployment.wanted == Wanted::Running {
                return Ok(deployment);
            }
            self.want(id, Want::Wake, None).await
        })
        .await
    }

    async fn want(
        &self,
        id: DeploymentId,
        want: Want,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            "SELECT project_id, wanted_state, wanted_incarnation, generation, seen_state, seen_incarnation,
                seen_generation, operation, operation_kind, force_destroy, wake_policy, stop_reason
             FROM deployments WHERE id = $1 FOR NO KEY UPDATE",
            id.uuid(),
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| StoreError::not_found("deployment", id))?;
        let now = Standing {
            wanted: parse(&row.wanted_state)?,
            wanted_incarnation: count(row.wanted_incarnation),
            generation: count(row.generation),
            seen: parse(&row.seen_state)?,
            seen_incarnation: count(row.seen_incarnation),
            seen_generation: count(row.seen_generation),
            operation: count(row.operation),
            force_destroy: row.force_destroy,
            wake_policy: parse(&row.wake_policy)?,
            stops_soon: row.stop_reason.is_some()
                && row.operation_kind.is_none()
                && row.seen_state == Seen::Running.as_str()
                && row.seen_incarnation == row.wanted_incarnation,
        };
        if let Some(expected) = expected_generation
            && expected != now.generation
        {
            return Err(StoreError::conflict(
                "generation-mismatch",
                format!("{id} is at generation {}, not {expected}: read it again", now.generation),
            ));
        }
        let Some(change) = decide(id, &now, want)? else {
            let deployment = get(&mut tx, id).await?;
            tx.commit().await?;
            return Ok(deployment);
        };
        sqlx::query!(
            "UPDATE deployments SET wanted_state = $2, wanted_incarnation = $3, force_destroy = $4,
                generation = generation + 1, failures = 0, last_error = NULL, next_action_at = now(),
                stop_reason = NULL, stop_after = NULL,
                running_at = CASE WHEN $2 = 'running' THEN now() ELSE running_at END,
                promote_when_healthy = promote_when_healthy AND $2 <> 'destroyed',
                expires_at = CASE WHEN $2 = 'destroyed' THEN NULL ELSE expires_at END
             WHERE id = $1",
            id.uuid(),
            change.wanted.as_str(),
            number(change.incarnation),
            change.force,
        )
        .execute(&mut *tx)
        .await?;
        let deployment = get(&mut tx, id).await?;
        let event = NewEvent {
            name: change.event.to_owned(),
            project_id: Some(ProjectId::from_uuid(row.project_id)),
            deployment_id: Some(id),
            incarnation: Some(change.incarnation),
            data: event::data([
                ("generation", json!(deployment.generation)),
                ("force", if change.force { json!(true) } else { json!(null) }),
            ]),
            ..NewEvent::default()
        };
        event::append(&mut tx, event).await?;
        tx.commit().await?;
        Ok(deployment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Standing = Standing {
        wanted: Wanted::Running,
        wanted_incarnation: 3,
        generation: 7,
        seen: Seen::Running,
        seen_incarnation: 3,
        seen_generation: 7,
        operation: 9,
        force_destroy: false,
        wake_policy: WakePolicy::Dynamic,
        stops_soon: false,
    };

    #[track_caller]
    fn check(now: Standing, want: Want, expected: Option<(Wanted, u64)>) {
        let change = decide(DeploymentId::new(), &now, want).unwrap();
        assert_eq!(change.map(|change| (change.wanted, change.incarnation)), expected, "{want:?} {now:?}");
    }

    #[test]
    fn what_is_so_already_changes_nothing() {
        check(RUNNING, Want::Start, None);
        check(RUNNING, Want::Wake, None);
        check(Standing { seen: Seen::Starting, ..RUNNING }, Want::Start, None);
        check(Standing { seen: Seen::Stopped, ..RUNNING }, Want::Start, None);
        check(Standing { wanted: Wanted::Stopped, ..RUNNING }, Want::Stop, None);
        check(Standing { wanted: Wanted::Destroyed, ..RUNNING }, Want::Destroy { force: false }, None);
    }

    #[test]
    fn each_start_is_another_incarnation_but_the_first() {
        let stopped = Standing { wanted: Wanted::Stopped, seen: Seen::Stopped, ..RUNNING };
        check(stopped, Want::Start, Some((Wanted::Running, 4)));
        check(stopped, Want::Wake, Some((Wanted::Running, 4)));
        check(stopped, Want::Restart, Some((Wanted::Running, 4)));
        check(RUNNING, Want::Restart, Some((Wanted::Running, 4)));
        // Stopped before anything of incarnation 3 was seen: it may have been begun all the same.
        check(Standing { seen_incarnation: 2, ..stopped }, Want::Start, Some((Wanted::Running, 4)));
        let fresh = Standing {
            wanted: Wanted::Stopped,
            seen: Seen::Created,
            wanted_incarnation: 1,
            seen_incarnation: 0,
            operation: 0,
            ..RUNNING
        };
        check(fresh, Want::Start, Some((Wanted::Running, 1)));
    }

    #[test]
    fn what_would_soon_be_stopped_runs_on() {
        let idle = Standing { wanted: Wanted::Stopped, stops_soon: true, ..RUNNING };
        check(idle, Want::Wake, Some((Wanted::Running, 3)));
        check(idle, Want::Start, Some((Wanted::Running, 3)));
        check(idle, Want::Restart, Some((Wanted::Running, 4)));
    }

    #[test]
    fn what_has_failed_is_tried_anew_once() {
        let failed = Standing { seen: Seen::Failed, ..RUNNING };
        check(failed, Want::Start, Some((Wanted::Running, 4)));
        // Asked for already, and not yet acted upon.
        check(Standing { generation: 8, wanted_incarnation: 4, ..failed }, Want::Start, None);
    }

    #[test]
    fn destroyed_is_final_but_force_may_be_added() {
        let going = Standing { wanted: Wanted::Destroyed, ..RUNNING };
        for want in [Want::Start, Want::Stop, Want::Restart, Want::Wake] {
            assert_eq!(decide(DeploymentId::new(), &going, want).unwrap_err().code(), "destroyed");
        }
        check(going, Want::Destroy { force: true }, Some((Wanted::Destroyed, 3)));
        check(Standing { seen: Seen::Destroyed, ..going }, Want::Destroy { force: true }, None);
    }

    #[test]
    fn only_what_may_be_woken_wakes() {
        let never = Standing { wanted: Wanted::Stopped, wake_policy: WakePolicy::None, ..RUNNING };
        assert_eq!(decide(DeploymentId::new(), &never, Want::Wake).unwrap_err().code(), "not-wakeable");
        check(Standing { wake_policy: WakePolicy::None, ..RUNNING }, Want::Wake, None);
    }
}
