//! Waiting until a deployment is in a state.

use std::time::Duration;

use api_types::{WaitOutcome, WaitQuery, WaitResult, WaitState};
use axum::Json;
use axum::extract::State;
use model::{DeploymentId, Health, Seen, Wanted};
use store::Change;

use super::Api;
use crate::changes::{Watch, Woken};
use crate::extract::{Params, Segments, id};
use crate::failure::Failure;
use crate::view;

const DEFAULT_TIMEOUT: u64 = 60;
const MAX_TIMEOUT: u64 = 600;

/// Wait until a start of a deployment is in a state, or can't come to it any more.
#[utoipa::path(
    get, path = "/v1/deployments/{deployment}/wait", operation_id = "waitForDeployment", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`"), WaitQuery),
    responses((status = 200, description = "The wait is over; `outcome` says how.", body = WaitResult)),
)]
pub(super) async fn wait(
    State(api): Api,
    Segments(deployment): Segments<String>,
    Params(query): Params<WaitQuery>,
) -> Result<Json<WaitResult>, Failure> {
    let deployment: DeploymentId = id(&deployment)?;
    let timeout = query.timeout.unwrap_or(DEFAULT_TIMEOUT);
    if timeout > MAX_TIMEOUT {
        return Err(Failure::query(
            "timeout",
            format!("{timeout} s is longer than {MAX_TIMEOUT} s: wait again instead"),
        ));
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(timeout);
    // Before the first look, so that no change falls between.
    let mut watch = Watch::new(&api);
    let mut row = api.store.deployment_get(deployment).await?;
    let incarnation = query.incarnation.unwrap_or(row.wanted_incarnation);
    let outcome = loop {
        if let Some(outcome) = Facts::of(&row).outcome(query.state, incarnation) {
            break outcome;
        }
        let changed = watch.changed(|change| *change == Change::Deployments(deployment));
        let is_over = match tokio::time::timeout_at(deadline, changed).await {
            Ok(Woken::Changed) => false,
            Ok(Woken::Shutdown) | Err(_) => true,
        };
        match api.store.deployment_get(deployment).await {
            Ok(seen) => row = seen,
            Err(error) if error.is_passing() && !is_over => {
                tracing::debug!(error = crate::failure::chain(&error), "a wait could not look");
                watch.pause().await;
            }
            Err(error) => return Err(error.into()),
        }
        if is_over {
            break Facts::of(&row).outcome(query.state, incarnation).unwrap_or(WaitOutcome::TimedOut);
        }
    };
    let deployment = view::deployment(&api, row).await?;
    Ok(Json(WaitResult { reached: outcome == WaitOutcome::Reached, outcome, deployment }))
}

/// What a wait looks at.
#[derive(Debug, Clone, Copy)]
struct Facts {
    wanted: Wanted,
    wanted_incarnation: u64,
    seen: Seen,
    incarnation: u64,
    health: Health,
    is_busy: bool,
}

impl Facts {
    fn of(row: &store::Deployment) -> Self {
        Self {
            wanted: row.wanted,
            wanted_incarnation: row.wanted_incarnation,
            seen: row.seen,
            incarnation: row.seen_incarnation,
            health: row.health,
            is_busy: row.current_operation.is_some(),
        }
    }

    /// How the wait for this state of this incarnation ends; none: it goes on.
    fn outcome(self, state: WaitState, incarnation: u64) -> Option<WaitOutcome> {
        let of_this_start = self.incarnation == incarnation;
        let reached = match state {
            WaitState::Running => of_this_start && self.seen == Seen::Running,
            WaitState::Healthy => {
                of_this_start && self.seen == Seen::Running && self.health == Health::Healthy
            }
            WaitState::Failed => of_this_start && self.seen == Seen::Failed,
            WaitState::Stopped => {
                let rests = matches!(self.seen, Seen::Created | Seen::Stopped);
                // Also one that is not to be started at all.
                rests
                    && ((of_this_start && self.seen == Seen::Stopped)
                        || (self.wanted == Wanted::Stopped && !self.is_busy))
            }
            WaitState::Destroyed => self.seen == Seen::Destroyed,
        };
        if reached {
            return Some(WaitOutcome::Reached);
        }
        if self.seen == Seen::Destroyed {
            return Some(WaitOutcome::Destroyed);
        }
        if state == WaitState::Destroyed {
            return None;
        }
        if self.incarnation > incarnation || self.wanted_incarnation > incarnation {
            return Some(WaitOutcome::Superseded);
        }
        // One that is to stop or to go will do so from here too.
        (of_this_start && self.seen == Seen::Failed && self.wanted == Wanted::Running)
            .then_some(WaitOutcome::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Facts = Facts {
        wanted: Wanted::Running,
        wanted_incarnation: 2,
        seen: Seen::Running,
        incarnation: 2,
        health: Health::Unknown,
        is_busy: false,
    };

    #[track_caller]
    fn check(facts: Facts, state: WaitState, incarnation: u64, expected: Option<WaitOutcome>) {
        assert_eq!(facts.outcome(state, incarnation), expected, "{facts:?}");
    }

    #[test]
    fn a_state_is_that_of_the_named_start() {
        use WaitOutcome::{Reached, Superseded};
        check(RUNNING, WaitState::Running, 2, Some(Reached));
        check(RUNNING, WaitState::Running, 3, None);
        check(RUNNING, WaitState::Running, 1, Some(Superseded));
        // The one that runs is still the old one.
        check(Facts { wanted_incarnation: 3, ..RUNNING }, WaitState::Running, 3, None);
        check(Facts { wanted_incarnation: 3, ..RUNNING }, WaitState::Healthy, 2, Some(Superseded));
    }

    #[test]
    fn healthy_is_more_than_running() {
        check(RUNNING, WaitState::Healthy, 2, None);
        check(Facts { health: Health::Unhealthy, ..RUNNING }, WaitState::Healthy, 2, None);
        check(
            Facts { health: Health::Healthy, ..RUNNING },
            WaitState::Healthy,
            2,
            Some(WaitOutcome::Reached),
        );
    }

    #[test]
    fn a_failed_start_ends_the_wait_for_it() {
        let failed = Facts { seen: Seen::Failed, ..RUNNING };
        check(failed, WaitState::Running, 2, Some(WaitOutcome::Failed));
        check(failed, WaitState::Running, 3, None);
        check(failed, WaitState::Failed, 2, Some(WaitOutcome::Reached));
        check(failed, WaitState::Destroyed, 2, None);
        check(Facts { wanted: Wanted::Stopped, ..failed }, WaitState::Stopped, 2, None);
    }

    #[test]
    fn gone_is_the_end() {
        let gone = Facts { wanted: Wanted::Destroyed, seen: Seen::Destroyed, ..RUNNING };
        check(gone, WaitState::Destroyed, 9, Some(WaitOutcome::Reached));
        check(gone, WaitState::Running, 2, Some(WaitOutcome::Destroyed));
        check(RUNNING, WaitState::Destroyed, 1, None);
    }

    #[test]
    fn an_earlier_stop_is_not_this_starts() {
        let stopped = Facts { seen: Seen::Stopped, wanted: Wanted::Stopped, ..RUNNING };
        check(stopped, WaitState::Stopped, 2, Some(WaitOutcome::Reached));
        let starting = Facts { wanted: Wanted::Running, wanted_incarnation: 3, ..stopped };
        check(starting, WaitState::Stopped, 3, None);
        let never_started = Facts { seen: Seen::Created, wanted_incarnation: 1, incarnation: 0, ..stopped };
        check(never_started, WaitState::Stopped, 1, Some(WaitOutcome::Reached));
        check(Facts { is_busy: true, ..never_started }, WaitState::Stopped, 1, None);
    }
}
