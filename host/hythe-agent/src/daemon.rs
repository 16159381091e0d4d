//! The daemon, put together: takes its folder, listens, supervises, ends.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use agent_client::Certificate;
use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cgroup::Cgroups;
use crate::context::{Context, Life};
use crate::data::DataFolder;
use crate::ports::Ports;
use crate::server::Server;
use crate::source::Sources;
use crate::users::{Users, WorkloadUser};
use crate::workload::Workloads;

/// Where the daemon's own environment says none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Two for each tunnel, and some.
const OPEN_FILES: u64 = 65_536;

/// What becomes of workloads when the daemon ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnExit {
    /// They go on; the next daemon takes them up.
    #[default]
    Keep,
    /// They end, and the next daemon starts them again.
    Stop,
}

/// How the daemon is to run.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Port 0: any free one.
    pub listen: SocketAddr,
    pub on_exit: OnExit,
    pub workload_user: WorkloadUser,
    /// The program `hythe-agent`: it also is the shim. This process's own, mostly.
    pub program: PathBuf,
}

/// A daemon that runs. Dropped without [`end`](Self::end) it leaves everything as a crash would.
#[derive(Debug)]
pub struct Daemon {
    data: DataFolder,
    address: SocketAddr,
    workloads: Arc<Workloads>,
    shared: Arc<Context>,
    on_exit: OnExit,
    tasks: Vec<JoinHandle<()>>,
    _lock: File,
}

impl Daemon {
    /// Starts it: on return it listens, and what ran before is being taken up.
    ///
    /// # Errors
    /// Where the machine has not joined, another daemon has the folder, its state can't be read, the
    /// address can't be listened on, or workloads' users can't be had.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        raise_open_files();
        let data = DataFolder::open(&config.data_dir)?;
        let lock = data.lock()?;
        let identity = data.identity()?.with_context(|| {
            format!(
                "this machine has not joined a host yet ({}/identity.json is missing): run `hythe-agent join`",
                data.path().display()
            )
        })?;
        let certificate = Certificate::load_or_create_daemon(data.path())?;
        let users = Users::new(&config.workload_user, data.path(), data.seed())?;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("listening on {}: choose another with --listen, or end what has it", config.listen)
        })?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Context {
            cgroups: Cgroups::discover(&format!("hythe-agent-{:08x}", data.seed())),
            ports: Ports::open(data.ports(), data.seed())?,
            users,
            sources: Sources::open(data.sources())?,
            program: config.program,
            path: std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned()),
            life: watch::Sender::new(Life::Serving),
            data: data.clone(),
        });
        let workloads = Workloads::open(shared.clone()).context("taking up what this machine has")?;
        let server = Server::new(&certificate, &identity, shared.clone(), workloads.clone())?;
        let tasks = vec![tokio::spawn(server.serve(listener)), tokio::spawn(workloads.clone().tidy())];
        data.write_listening(address).context("writing agent.json")?;
        tracing::info!(machine.id = identity.machine_id, net.address = %address, "the daemon listens");
        Ok(Self { data, address, workloads, shared, on_exit: config.on_exit, tasks, _lock: lock })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it in order: with [`OnExit::Stop`] its workloads too (10 s for each from SIGTERM to SIGKILL,
    /// all at once).
    pub async fn end(self) {
        let life = match self.on_exit {
            OnExit::Keep => Life::Leaving,
            OnExit::Stop => Life::Stopping,
        };
        tracing::info!(on_exit = ?self.on_exit, "the daemon ends");
        self.workloads.end(life).await;
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.cgroups.remove_base();
        if let Err(error) = self.data.remove_listening() {
            tracing::warn!(error = %error, "agent.json could not be removed");
        }
    }
}

/// Workloads inherit it, as they do from a shell.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
