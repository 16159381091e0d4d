//! What was seen of a deployment, written under its lease, with all that follows from it: the events, the
//! promotion of what became healthy, the release of what is gone.

use model::{DeploymentId, Health, ProjectId, Seen, Wanted};
use serde_json::json;

use super::get;
use super::lease::{LeasedRow, lock};
use crate::convert::{count, number, parse, seconds};
use crate::error::StoreError;
use crate::store::Store;
use crate::types::{Deployment, Lease, NewEvent, Observation};
use crate::{event, machine, project};

/// What is stored.
#[derive(Debug, Clone, Copy)]
struct Standing {
    wanted: Wanted,
    wanted_incarnation: u64,
    generation: u64,
    seen: Seen,
    seen_incarnation: u64,
    seen_generation: u64,
    health: Health,
}

impl TryFrom<&LeasedRow> for Standing {
    type Error = StoreError;

    fn try_from(row: &LeasedRow) -> Result<Self, StoreError> {
        Ok(Self {
            wanted: parse(&row.wanted_state)?,
            wanted_incarnation: count(row.wanted_incarnation),
            generation: count(row.generation),
            seen: parse(&row.seen_state)?,
            seen_incarnation: count(row.seen_incarnation),
            seen_generation: count(row.seen_generation),
            health: parse(&row.health)?,
        })
    }
}

/// What follows from an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    health: Health,
    /// The state, or what it is about, is another than before.
    moved: bool,
    /// Health was asked for, or is not known any more.
    health_fresh: bool,
}

fn settle(now: &Standing, new: &Observation) -> Result<Outcome, StoreError> {
    if new.incarnation > now.wanted_incarnation || new.generation > now.generation {
        return Err(StoreError::conflict(
            "invalid-observation",
            format!(
                "incarnation {} of generation {} can't have been seen: the last ones asked for are {} and {}",
                new.incarnation, new.generation, now.wanted_incarnation, now.generation
            ),
        ));
    }
    if new.incarnation < now.seen_incarnation || new.generation < now.seen_generation {
        return Err(StoreError::Superseded);
    }
    let gone_unasked = new.seen == Seen::Destroyed && now.wanted != Wanted::Destroyed;
    if !now.seen.may_become(new.seen) || gone_unasked {
        return Err(StoreError::conflict(
            "invalid-transition",
            format!(
                "a deployment that is {} and wanted {} can't be seen as {}",
                now.seen, now.wanted, new.seen
            ),
        ));
    }
    let moved = new.seen != now.seen || new.incarnation != now.seen_incarnation;
    let (health, health_fresh) = match &new.health {
        _ if new.seen != Seen::Running => (Health::Unknown, now.health != Health::Unknown),
        Some((health, _)) => (*health, true),
        None if moved => (Health::Unknown, now.health != Health::Unknown),
        None => (now.health, false),
    };
    Ok(Outcome { health, moved, health_fresh })
}

impl Store {
    /// Writes down what was seen; gives the deployment as it then is. The lease stays.
    ///
    /// - Where what is wanted changed since `observation.generation`, the deployment is due at once.
    /// - Events `deployment.<state>` where state or incarnation changed, `deployment.healthy` and
    ///   `deployment.unhealthy` where that changed.
    /// - Healthy and to be promoted: becomes its project's primary in the same transaction (event
    ///   `project.primary-changed`), unless a newer deployment is primary by now: then it expires like a replaced
    ///   one (event `deployment.overtaken`).
    /// - Destroyed: is no primary any more, holds no machine (event `machine.released`), has no operation.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Superseded`] where a later incarnation or generation was seen already;
    /// Conflict `invalid-transition` (see [`Seen::may_become`]; `destroyed` only where that is wanted) or
    /// `invalid-observation`. Nothing is written then.
    pub async fn deployment_observe(
        &self,
        lease: &Lease,
        observation: Observation,
    ) -> Result<Deployment, StoreError> {
        self.call("deployment_observe", self.observe(lease, observation)).await
    }

    async fn observe(&self, lease: &Lease, new: Observation) -> Result<Deployment, StoreError> {
        let id = lease.deployment;
        let mut tx = self.pool.begin().await?;
        // The project is locked before the deployment, so it must be known beforehand whether it will be needed.
        // Neither column ever changes in a way that would make it needed later.
        let before =
            sqlx::query!("SELECT project_id, promote_when_healthy FROM deployments WHERE id = $1", id.uuid())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or(StoreError::LeaseLost)?;
        let project = ProjectId::from_uuid(before.project_id);
        let healthy = new.seen == Seen::Running && matches!(new.health, Some((Health::Healthy, _)));
        let primary = if (healthy && before.promote_when_healthy) || new.seen == Seen::Destroyed {
            Some(project::lock(&mut tx, project).await?)
        } else {
            None
        };
        let row = lock(&mut tx, lease).await?;
        let now = Standing::try_from(&row)?;
        let outcome = settle(&now, &new)?;

        let gone = new.seen == Seen::Destroyed;
        sqlx::query!(
            "UPDATE deployments SET
                seen_state = $2, seen_incarnation = $3, seen_generation = $4, seen_at = now(), seen_detail = $5,
                health = $6,
                health_detail = CASE WHEN $7 THEN $8 ELSE health_detail END,
                health_at = CASE WHEN $7 THEN now() ELSE health_at END,
                operation_kind = CASE WHEN $9 THEN NULL ELSE operation_kind END,
                operation_generation = CASE WHEN $9 THEN NULL ELSE operation_generation END,
                operation_incarnation = CASE WHEN $9 THEN NULL ELSE operation_incarnation END,
                operation_started_at = CASE WHEN $9 THEN NULL ELSE operation_started_at END,
                operation_tries = CASE WHEN $9 THEN 0 ELSE operation_tries END,
                failures = $10, last_error = $11,
                next_action_at = CASE
                    WHEN generation > $4 THEN now()
                    WHEN $12::float8 IS NULL THEN '9999-01-01Z'
                    ELSE now() + make_interval(secs => $12) END,
                destroyed_at = CASE WHEN $13 THEN coalesce(destroyed_at, now()) END
             WHERE id = $1",
            id.uuid(),
            new.seen.as_str(),
            number(new.incarnation),
            number(new.generation),
            new.detail,
            outcome.health.as_str(),
            outcome.health_fresh,
            new.health.as_ref().filter(|_| outcome.health != Health::Unknown).and_then(|(_, detail)| detail.clone()),
            new.finished_operation || gone,
            new.failures,
            new.last_error,
            new.next_action_in.map(seconds),
            gone,
        )
        .execute(&mut *tx)
        .await?;

        let mut events = Vec::new();
        let tell = |name: String, data| NewEvent {
            name,
            project_id: Some(project),
            deployment_id: Some(id),
            incarnation: Some(new.incarnation),
            data,
            ..NewEvent::default()
        };
        if outcome.moved {
            let data = event::data([
                ("from", json!(now.seen)),
                ("detail", json!(new.detail)),
                ("error", json!(new.last_error)),
            ]);
            events.push(tell(format!("deployment.{}", new.seen), data));
        }
        let health_moved = outcome.health != now.health || outcome.moved;
        if health_moved && outcome.health != Health::Unknown {
            let detail = new.health.as_ref().and_then(|(_, detail)| detail.clone());
            events.push(tell(
                format!("deployment.{}", outcome.health),
                event::data([("detail", json!(detail))]),
            ));
        }
        if gone {
            if primary == Some(Some(id)) {
                sqlx::query!(
                    "UPDATE projects SET primary_deployment_id = NULL WHERE id = $1",
                    project.uuid()
                )
                .execute(&mut *tx)
                .await?;
                let data = event::data([("previous", json!(id))]);
                events.push(NewEvent {
                    deployment_id: None,
                    incarnation: None,
                    ..tell("project.primary-changed".to_owned(), data)
                });
            }
            events.extend(machine::release(&mut tx, id).await?);
        }
        let promote = healthy && row.promote_when_healthy && now.wanted == Wanted::Running;
        if let (true, Some(primary)) = (promote, primary) {
            events.push(self.promote(&mut tx, project, primary, id).await?);
        }

        let deployment = get(&mut tx, id).await?;
        for event in events {
            event::append(&mut tx, event).await?;
        }
        tx.commit().await?;
        Ok(deployment)
    }

    /// Under the locks of the project and the deployment.
    async fn promote(
        &self,
        connection: &mut sqlx::PgConnection,
        project: ProjectId,
        primary: Option<DeploymentId>,
        id: DeploymentId,
    ) -> Result<NewEvent, StoreError> {
        let grace = self.options.drain_grace;
        let overtaken = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM deployments newer, deployments this
                WHERE newer.id = $1 AND this.id = $2 AND newer.wanted_state <> 'destroyed'
                    AND (newer.created_at, newer.id) > (this.created_at, this.id)) AS "overtaken!""#,
            primary.map(|id| id.uuid()),
            id.uuid(),
        )
        .fetch_one(&mut *connection)
        .await?;
        if !overtaken {
            return project::set_primary(connection, project, primary, id, grace).await;
        }
        sqlx::query!(
            "UPDATE deployments SET promote_when_healthy = false, expires_at = now() + make_interval(secs => $2)
             WHERE id = $1",
            id.uuid(),
            seconds(grace),
        )
        .execute(connection)
        .await?;
        Ok(NewEvent {
            name: "deployment.overtaken".to_owned(),
            project_id: Some(project),
            deployment_id: Some(id),
            data: event::data([("primary", json!(primary))]),
            ..NewEvent::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Standing = Standing {
        wanted: Wanted::Running,
        wanted_incarnation: 2,
        generation: 3,
        seen: Seen::Running,
        seen_incarnation: 2,
        seen_generation: 3,
        health: Health::Healthy,
    };

    fn seen(seen: Seen) -> Observation {
        Observation {
            seen,
            incarnation: 2,
            generation: 3,
            detail: None,
            finished_operation: false,
            failures: 0,
            last_error: None,
            next_action_in: None,
            health: None,
        }
    }

    #[test]
    fn health_lasts_as_long_as_the_incarnation_runs() {
        let check = |now: &Standing, new: &Observation, expected: Health| {
            assert_eq!(settle(now, new).unwrap().health, expected, "{now:?} {new:?}");
        };
        check(&RUNNING, &seen(Seen::Running), Health::Healthy);
        check(
            &RUNNING,
            &Observation { health: Some((Health::Unhealthy, None)), ..seen(Seen::Running) },
            Health::Unhealthy,
        );
        check(
            &RUNNING,
            &Observation { health: Some((Health::Healthy, None)), ..seen(Seen::Failed) },
            Health::Unknown,
        );
        let restarted = Standing { wanted_incarnation: 3, ..RUNNING };
        check(&restarted, &Observation { incarnation: 3, ..seen(Seen::Running) }, Health::Unknown);
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let check = |now: &Standing, new: &Observation, code: &str| {
            assert_eq!(settle(now, new).unwrap_err().code(), code, "{now:?} {new:?}");
        };
        check(&RUNNING, &Observation { incarnation: 3, ..seen(Seen::Running) }, "invalid-observation");
        check(&RUNNING, &Observation { generation: 4, ..seen(Seen::Running) }, "invalid-observation");
        check(&RUNNING, &Observation { incarnation: 1, ..seen(Seen::Stopped) }, "superseded");
        check(&RUNNING, &Observation { generation: 2, ..seen(Seen::Stopped) }, "superseded");
        check(&RUNNING, &seen(Seen::Created), "invalid-transition");
        check(&RUNNING, &seen(Seen::Destroyed), "invalid-transition");
        settle(&Standing { wanted: Wanted::Destroyed, ..RUNNING }, &seen(Seen::Destroyed)).unwrap();
    }
}
