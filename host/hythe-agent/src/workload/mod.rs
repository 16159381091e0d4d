//! One workload: what is asked of it, checked against the fence and written down before anything is
//! done. Doing it is the [`supervisor`]'s.
//!
//! Always holds: what the disk says is at least as new as what anybody was told.

mod files;
mod record;
mod registry;
mod run;
mod spec;
mod supervisor;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use agent_api::{WorkloadPhase, WorkloadSpec, WorkloadStatus};
use model::{DeploymentId, Fence};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::context::Shared;
use crate::data::WorkloadFolder;
use crate::durable;
use crate::execution::Executions;
use crate::faults;
use crate::log::{HYTHE, LogWriter};
use crate::ports::is_listening;
use crate::problem::Refusal;
use crate::process;

pub use record::Record;
pub use registry::Workloads;
pub use spec::{check_command, check_cwd, check_environment, cwd, environment};
pub use supervisor::connect;

use record::Wanted;

#[derive(Debug)]
pub struct Workload {
    pub id: DeploymentId,
    pub folder: WorkloadFolder,
    pub context: Shared,
    pub executions: Executions,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    current: watch::Sender<Arc<Record>>,
    log: Mutex<Option<LogWriter>>,
}

impl Workload {
    fn new(context: Shared, record: Record) -> Arc<Self> {
        let folder = context.data.workload(record.deployment);
        Arc::new(Self {
            id: record.deployment,
            executions: Executions::new(folder.executions()),
            folder,
            context,
            changing: tokio::sync::Mutex::default(),
            current: watch::Sender::new(Arc::new(record)),
            log: Mutex::default(),
        })
    }

    /// What is known now.
    pub fn record(&self) -> Arc<Record> {
        self.current.borrow().clone()
    }

    fn subscribe(&self) -> watch::Receiver<Arc<Record>> {
        self.current.subscribe()
    }

    /// What the world is told; none where nothing was ever said about it.
    pub fn status(&self) -> Option<WorkloadStatus> {
        let record = self.record();
        let launched = record.launched.map(|launch| launch.run);
        let child = launched.and_then(|run| run::running(&self.folder.run()).filter(|note| note.run == run));
        let pid = child.filter(|note| note.is_command).map(|note| note.process.pid);
        (!record.is_unseen()).then(|| record.status(pid))
    }

    /// Changes the record: on disk first, then for all to see. Where `change` refuses, or the disk does,
    /// nothing has changed. Goes on to its end should the caller be dropped.
    async fn change<R, E>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Record) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<io::Error> + Send + 'static,
    {
        let workload = self.clone();
        let changed = tokio::spawn(async move {
            let _changing = workload.changing.lock().await;
            let before = workload.record();
            let blocking = workload.clone();
            let work = move || {
                let mut after = Record::clone(&before);
                let result = change(&mut after)?;
                if after == *before {
                    return Ok(result);
                }
                let written = blocking.write(&after);
                let (kept, dropped) = if written.is_ok() { (&after, &*before) } else { (&*before, &after) };
                let is_kept = |port: &u16| kept.services.iter().any(|service| service.local_port == *port);
                let mut ports: Vec<u16> = dropped.services.iter().map(|service| service.local_port).collect();
                ports.retain(|port| !is_kept(port));
                blocking.context.ports.release(&ports);
                written?;
                blocking.current.send_replace(Arc::new(after));
                Ok(result)
            };
            tokio::task::spawn_blocking(work).await
        });
        match changed.await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) | Err(error) => Err(io::Error::other(error).into()),
        }
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        faults::point("daemon.before_state_write");
        durable::write_json(&self.context.data.state(self.id), record)?;
        faults::point("daemon.after_state_write");
        Ok(())
    }

    /// Starts the fence's incarnation, or says how far it is.
    pub async fn put(
        self: &Arc<Self>,
        fence: Fence,
        wanted: WorkloadSpec,
    ) -> Result<WorkloadStatus, Refusal> {
        spec::check(&wanted)?;
        let workload = self.clone();
        self.change(move |record| {
            let before = record.clone();
            record.accept(&fence)?;
            match before.started {
                Some(started) if fence.incarnation < started => {
                    return Err(Refusal::superseded(format!(
                        "incarnation {} comes too late: {started} was started on this machine",
                        fence.incarnation
                    )));
                }
                Some(started) if fence.incarnation == started => return Ok(()),
                _ => {}
            }
            if let Some(source) = &wanted.source
                && files::needs_archive(&workload.folder, &before, source)
                && workload.context.sources.find(source).is_none()
            {
                return Err(Refusal::source_missing(source));
            }
            let ports = workload.context.ports.allocate(wanted.services.len())?;
            let user = match record.user {
                Some(user) => Ok(Some(user)),
                None => workload.context.users.allocate(),
            };
            let user = user.inspect_err(|_| workload.context.ports.release(&ports))?;
            *record = Record {
                generation: record.generation,
                incarnation: fence.incarnation,
                operation: record.operation,
                wanted: Wanted::Running,
                since_ms: crate::clock::now_ms(),
                phase: WorkloadPhase::Starting,
                started: Some(fence.incarnation),
                services: spec::services(&wanted, &ports),
                spec: wanted,
                user,
                unpacked: record.unpacked.take(),
                launched: record.launched,
                runs: record.runs,
                ..Record::unseen(record.deployment)
            };
            Ok(())
        })
        .await?;
        self.known_status()
    }

    /// Asks the workload to end.
    pub async fn stop(self: &Arc<Self>, fence: Fence, grace_ms: u64) -> Result<WorkloadStatus, Refusal> {
        self.change(move |record| {
            record.accept(&fence)?;
            // What is being removed stays so: that is the end.
            let ended = matches!(record.phase, WorkloadPhase::Stopped | WorkloadPhase::Destroyed);
            if !ended && record.wanted != Wanted::Destroyed {
                record.wanted = Wanted::Stopped;
                record.grace_ms = grace_ms;
                let detail = record.detail.take().filter(|_| record.phase == WorkloadPhase::Stopping);
                record.enter(WorkloadPhase::Stopping, detail);
            }
            Ok::<_, Refusal>(())
        })
        .await?;
        self.known_status()
    }

    /// Ends it and removes all that it has; only the fence is kept.
    pub async fn destroy(self: &Arc<Self>, fence: Fence) -> Result<WorkloadStatus, Refusal> {
        self.change(move |record| {
            let unseen = record.is_unseen();
            record.accept(&fence)?;
            record.wanted = Wanted::Destroyed;
            if unseen {
                record.enter(WorkloadPhase::Destroyed, None);
            } else if !record.is_tombstone() {
                record.enter(WorkloadPhase::Stopping, Some("it is being removed".to_owned()));
            }
            Ok::<_, Refusal>(())
        })
        .await?;
        self.known_status()
    }

    fn known_status(&self) -> Result<WorkloadStatus, Refusal> {
        self.status().ok_or_else(|| Refusal::not_found(format!("{} is not on this machine", self.id)))
    }

    /// The local port of a service, or a port that a process of the workload listens on.
    pub async fn local_port(self: &Arc<Self>, service_or_port: &str) -> Result<u16, Refusal> {
        let record = self.record();
        if let Some(service) = record.services.iter().find(|service| service.name == service_or_port) {
            return Ok(service.local_port);
        }
        let missing = || {
            Refusal::not_found(format!(
                "{} has no service {service_or_port:?}, and none of its processes listens on such a port",
                self.id
            ))
        };
        let port: u16 = service_or_port.parse().map_err(|_| missing())?;
        if self.owns_port(port).await { Ok(port) } else { Err(missing()) }
    }

    /// Whether connections to the port are the workload's.
    pub async fn owns_port(self: &Arc<Self>, port: u16) -> bool {
        if self.record().services.iter().any(|service| service.local_port == port) {
            return true;
        }
        let workload = self.clone();
        let look = tokio::task::spawn_blocking(move || is_listening(&workload.processes(), port));
        look.await.unwrap_or(false)
    }

    /// All its processes, of executions too; without the shims.
    fn processes(&self) -> Vec<u32> {
        let shims: Vec<u32> = [self.folder.run()]
            .into_iter()
            .chain(self.executions.folders())
            .filter_map(|folder| {
                let note = durable::read_json::<crate::shim::plan::ShimNote>(&folder.shim()).ok().flatten();
                note.filter(|note| note.process.is_alive()).map(|note| note.process.pid)
            })
            .collect();
        let mut processes = process::descendants(&shims);
        if let Some(group) = self.context.cgroups.existing(&self.id.to_string()) {
            processes.extend(crate::cgroup::processes(&group));
        }
        processes
    }

    /// Where its log is, or will be.
    pub fn log_folder(&self) -> PathBuf {
        if self.record().wanted != Wanted::Destroyed {
            // Who follows a log may come before its first line. Where it fails, there is nothing to follow.
            let _ = self.folder.make();
        }
        self.folder.log()
    }

    /// The daemon's own words in the workload's log.
    fn say(&self, text: &str) {
        tracing::info!(deployment.id = %self.id, "{text}");
        let mut log = self.log.lock();
        if log.is_none() && self.folder.make().is_ok() {
            *log = LogWriter::open(&self.folder.log()).ok();
        }
        if let Some(log) = &mut *log {
            let _ = log.append(HYTHE, [text.to_owned()]);
        }
    }
}
