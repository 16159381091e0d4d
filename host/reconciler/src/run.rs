//! The loop: takes what is due, as much as there is room for, until told to stop.
//!
//! Takes no input: a signal only says that looking is worth while, and a timer looks anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use artifacts::ArtifactStore;
use chrono::Utc;
use store::Store;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::adapters::Adapters;
use crate::calls::DeploymentCalls;
use crate::executor::{Context, Settings, reconcile};
use crate::machines::Machines;

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The shortest: the database's clock may be another than this one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks for replaced deployments whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How long steps may take to end when the host stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Brings deployments to what is wanted of them.
pub struct Reconciler {
    context: Arc<Context>,
    /// This run of the host, as the holder of leases.
    holder: Uuid,
    signal: Arc<Notify>,
}

impl Reconciler {
    #[must_use]
    pub fn new(
        store: Store,
        adapters: Arc<Adapters>,
        machines: Machines,
        artifacts: ArtifactStore,
        settings: Settings,
    ) -> Self {
        Self {
            context: Arc::new(Context { store, adapters, machines, artifacts, settings }),
            holder: Uuid::now_v7(),
            signal: Arc::default(),
        }
    }

    /// Calls of adapters outside operations.
    #[must_use]
    pub fn calls(&self) -> DeploymentCalls {
        DeploymentCalls::new(self.context.clone())
    }

    /// To be notified when something may be due.
    #[must_use]
    pub fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }

    /// Runs until `stop`, then ends what is in hand and gives the leases back.
    pub async fn run(self, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(self.context.settings.concurrency));
        let steps = TaskTracker::new();
        let expiring =
            tokio::spawn(stop.clone().run_until_cancelled_owned(expire(self.context.store.clone())));
        while !stop.is_cancelled() {
            let took = self.take_due(&room, &steps).await;
            if took == 0 || room.available_permits() == 0 {
                // Without room only an ended step helps, and that signals.
                let pause = if room.available_permits() == 0 { LONGEST_PAUSE } else { self.pause().await };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.signal.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        expiring.abort();
        steps.close();
        if tokio::time::timeout(STOP_TIMEOUT, steps.wait()).await.is_err() {
            // Their leases are in use: they pass by themselves.
            tracing::warn!("operations are left to the next host: they did not end in time");
            return;
        }
        if let Err(error) = self.context.store.deployment_release_all(self.holder).await {
            tracing::warn!(%error, "leases were not given back; they pass by themselves");
        }
    }

    /// Starts a task for each deployment that is due. How many.
    async fn take_due(&self, room: &Arc<Semaphore>, steps: &TaskTracker) -> usize {
        let limit = u32::try_from(room.available_permits()).unwrap_or(u32::MAX);
        if limit == 0 {
            return 0;
        }
        let asked_at = Instant::now();
        let due = match self
            .context
            .store
            .deployment_lease_due(self.holder, self.context.settings.lease, limit)
            .await
        {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "what is due can't be read now");
                return 0;
            }
        };
        let took = due.len();
        for leased in due {
            let Ok(permit) = room.clone().try_acquire_owned() else { break };
            let (context, signal) = (self.context.clone(), self.signal.clone());
            steps.spawn(async move {
                reconcile(context, leased, asked_at).await;
                drop(permit);
                // It may be due again at once, or there was no room for others.
                signal.notify_one();
            });
        }
        took
    }

    async fn pause(&self) -> Duration {
        match self.context.store.deployment_next_due().await {
            Ok(Some(next)) => {
                (next - Utc::now()).to_std().unwrap_or_default().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
            }
            Ok(None) => LONGEST_PAUSE,
            Err(_) => Duration::from_millis(500),
        }
    }
}

/// Replaced deployments are destroyed when their time is over.
async fn expire(store: Store) {
    loop {
        match store.deployment_expire_due().await {
            Ok(expired) => {
                for deployment in expired {
                    tracing::info!(%deployment, "a replaced deployment's time is over");
                }
            }
            Err(error) => tracing::debug!(%error, "replaced deployments can't be looked for now"),
        }
        tokio::time::sleep(EXPIRE_EVERY).await;
    }
}
