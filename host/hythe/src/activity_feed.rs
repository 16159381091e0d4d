//! Tells the other hosts what goes on at deployments that have an idle time-out, and looks for those at which
//! nothing does.
//!
//! Always holds: only what changed is written, in one statement, every [`BEAT`]; a stop is announced for longer
//! than that before it is made, so that what was on its way is reported first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ingress::Routes;
use model::DeploymentId;
use parking_lot::Mutex;
use store::{DeploymentActivity, Store};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

/// Between two reports.
const BEAT: Duration = Duration::from_secs(2);
/// Between the announcement of an idle stop and the stop: two beats and a little, for one that is late.
const WINDOW: Duration = Duration::from_secs(5);

/// Deployments that have an idle time-out.
#[derive(Debug, Default)]
pub struct IdleDeployments(Mutex<HashSet<DeploymentId>>);

impl IdleDeployments {
    /// Makes these all.
    pub fn replace(&self, deployments: impl Iterator<Item = DeploymentId>) {
        *self.0.lock() = deployments.collect();
    }

    /// Whether it has one.
    pub fn set(&self, deployment: DeploymentId, has_timeout: bool) {
        if has_timeout {
            self.0.lock().insert(deployment);
        } else {
            self.0.lock().remove(&deployment);
        }
    }
}

/// Reports and looks for ever.
pub async fn follow(store: Store, routes: Arc<Routes>, deployments: Arc<IdleDeployments>) {
    let host = Uuid::now_v7();
    let mut reported = HashMap::new();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let news = news(&routes, &deployments, &mut reported);
        if !news.is_empty()
            && let Err(error) = store.activity_report(host, &news).await
        {
            tracing::debug!(%error, "activity can't be reported now");
            reported.clear();
            // What others do not know of must not be taken for idle.
            continue;
        }
        match store.deployment_idle_sweep(WINDOW).await {
            Ok(sweep) => {
                for deployment in sweep.stopped {
                    tracing::info!(%deployment, "stopping a deployment: nothing has gone on at it for its idle time-out");
                }
                for deployment in sweep.kept {
                    tracing::info!(%deployment, "not stopping a deployment after all: something goes on at it");
                }
            }
            Err(error) => tracing::debug!(%error, "idle deployments can't be looked for now"),
        }
    }
}

/// What others do not know yet. Something open is news at each beat.
fn news(
    routes: &Routes,
    deployments: &IdleDeployments,
    reported: &mut HashMap<DeploymentId, SystemTime>,
) -> Vec<DeploymentActivity> {
    let deployments = deployments.0.lock();
    reported.retain(|deployment, _| deployments.contains(deployment));
    let now = SystemTime::now();
    let mut news = Vec::new();
    for deployment in deployments.iter() {
        let Some(report) = routes.activity(*deployment) else { continue };
        let Some(last) = report.last else { continue };
        let open = report.open_requests.saturating_add(report.open_upgrades);
        let before = reported.get(deployment).copied();
        if open > 0 {
            // So that the end is news, whenever it was.
            reported.remove(deployment);
        } else {
            if before == Some(last) {
                continue;
            }
            reported.insert(*deployment, last);
        }
        let idle_for = report.idle_for(now).unwrap_or_default();
        news.push(DeploymentActivity { deployment: *deployment, open, idle_for });
    }
    news
}
