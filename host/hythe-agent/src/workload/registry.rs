//! All workloads of a daemon.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent_api::WorkloadStatus;
use model::DeploymentId;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::supervisor::{Origin, Supervisor, forget, is_forgettable};
use super::{Record, Workload};
use crate::context::{Life, Shared};
use crate::durable;

/// Between two rounds of tidying.
const TIDY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Workloads {
    context: Shared,
    entries: Mutex<HashMap<DeploymentId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    workload: Arc<Workload>,
    supervisor: JoinHandle<()>,
}

impl Workloads {
    /// Takes up all that the data folder knows.
    ///
    /// # Errors
    /// Where a state can't be read: nothing is started then, since it could be a second time.
    pub fn open(context: Shared) -> io::Result<Arc<Self>> {
        let mut records = Vec::new();
        for deployment in context.data.deployments()? {
            if let Some(record) = durable::read_json::<Record>(&context.data.state(deployment))? {
                records.push(record);
            }
        }
        // All claims before the first supervisor could make another.
        for record in &records {
            record.user.into_iter().for_each(|user| context.users.reclaim(user));
            for service in &record.services {
                if !context.ports.reclaim(service.local_port) {
                    tracing::warn!(
                        deployment.id = %record.deployment,
                        service.local_port,
                        "another daemon on this machine uses the same local port"
                    );
                }
            }
        }
        let workloads = Arc::new(Self { context, entries: Mutex::default() });
        for record in records {
            let id = record.deployment;
            workloads.entries.lock().insert(id, workloads.entry(record, Origin::Disk));
        }
        Ok(workloads)
    }

    fn entry(&self, record: Record, origin: Origin) -> Entry {
        let workload = Workload::new(self.context.clone(), record);
        let supervisor = tokio::spawn(Supervisor::supervise(workload.clone(), origin));
        Entry { workload, supervisor }
    }

    /// The workload, where anything was ever said about it.
    pub fn find(&self, deployment: DeploymentId) -> Option<Arc<Workload>> {
        let entries = self.entries.lock();
        entries
            .get(&deployment)
            .map(|entry| entry.workload.clone())
            .filter(|workload| !workload.record().is_unseen())
    }

    /// The workload, made where needed: for the operations that may be the first.
    pub fn enter(&self, deployment: DeploymentId) -> Arc<Workload> {
        let mut entries = self.entries.lock();
        let entry = entries
            .entry(deployment)
            .or_insert_with(|| self.entry(Record::unseen(deployment), Origin::Request));
        entry.workload.clone()
    }

    fn all(&self) -> Vec<Arc<Workload>> {
        self.entries.lock().values().map(|entry| entry.workload.clone()).collect()
    }

    /// All that are not gone, oldest deployment first.
    pub fn statuses(&self) -> Vec<WorkloadStatus> {
        let mut workloads = self.all();
        workloads.retain(|workload| !workload.record().is_tombstone());
        workloads.sort_by_key(|workload| workload.id);
        workloads.iter().filter_map(|workload| workload.status()).collect()
    }

    /// Ends supervision; with [`Life::Stopping`] when all workloads have ended.
    pub async fn end(&self, life: Life) {
        self.context.life.send_replace(life);
        let entries: Vec<Entry> = self.entries.lock().drain().map(|(_, entry)| entry).collect();
        for entry in entries {
            if life == Life::Stopping {
                let _ = entry.supervisor.await;
            } else {
                entry.supervisor.abort();
            }
        }
    }

    /// Removes for ever what nobody can ask for any more.
    pub async fn tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TIDY).await;
            for workload in self.all() {
                workload.executions.prune();
                if is_forgettable(&workload.record()) {
                    self.forget(&workload).await;
                }
            }
            let context = self.context.clone();
            let _ = tokio::task::spawn_blocking(move || context.sources.prune()).await;
        }
    }

    async fn forget(&self, workload: &Arc<Workload>) {
        let _changing = workload.changing.lock().await;
        let mut entries = self.entries.lock();
        // Somebody else may be about to change it: then the next round will see.
        let held_elsewhere = Arc::strong_count(workload) > 3;
        if !held_elsewhere
            && is_forgettable(&workload.record())
            && forget(workload).is_ok()
            && let Some(entry) = entries.remove(&workload.id)
        {
            entry.supervisor.abort();
        }
    }
}
