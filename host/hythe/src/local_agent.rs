//! Daemons that this host runs beside itself: on a laptop, and for adapters whose grant names one.
//!
//! Always holds: one process a data folder (the daemon's own lock sees to it). A daemon that outlived
//! its host is adopted, never doubled. A daemon that ends is started again, a little later each time.
//!
//! Deliberately absent: what runs under a daemon.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agent_client::{AgentClient, AgentEndpoint, HostIdentity};
use anyhow::{Context, bail};
use arc_swap::ArcSwapOption;
use model::MachineId;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// How long a daemon may take from its start until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a daemon may take to end its workloads and itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks for the file that a starting daemon writes.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How to run one.
#[derive(Debug, Clone)]
pub struct Options {
    /// For messages.
    pub name: String,
    /// The `hythe-agent` program.
    pub program: PathBuf,
    pub data_dir: PathBuf,
    /// `address:port`; port 0: any.
    pub listen: String,
    /// `auto`, `none` or a user's name.
    pub workload_user: String,
    /// Whether workloads end with the daemon when it is told to stop.
    pub stop_workloads_on_exit: bool,
}

/// What a listening daemon says of itself, in `agent.json`.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct Listening {
    pub pid: i32,
    pub address: String,
    pub port: u16,
}

/// Where a daemon is reached now; empty while it is away.
pub type CurrentClient = Arc<ArcSwapOption<AgentClient>>;

/// Writes the identity of a daemon that shares this machine with the host, where it has none.
///
/// # Errors
/// Where the folder can't be written.
pub fn provision(data_dir: &Path, host: &HostIdentity) -> anyhow::Result<agent_api::RegistrationResponse> {
    let file = data_dir.join("identity.json");
    if let Ok(text) = std::fs::read(&file) {
        let identity: agent_api::RegistrationResponse =
            serde_json::from_slice(&text).with_context(|| format!("can't read {}", file.display()))?;
        if identity.host_certificate_sha256 == host.certificate_sha256() {
            return Ok(identity);
        }
    }
    let mut key = [0_u8; 32];
    getrandom::fill(&mut key).context("the system gives no random bytes")?;
    let identity = agent_api::RegistrationResponse {
        machine_id: MachineId::new().to_string(),
        shared_key: hex::encode(key),
        host_certificate_sha256: host.certificate_sha256().to_owned(),
    };
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("can't make the folder {}", data_dir.display()))?;
    crate::files::write_private(&file, &serde_json::to_vec_pretty(&identity)?)?;
    Ok(identity)
}

/// A client for the daemon whose identity was [`provision`]ed in this folder, at this address.
///
/// # Errors
/// Where its certificate or key can't be read.
pub fn client(
    data_dir: &Path,
    identity: &agent_api::RegistrationResponse,
    host: &HostIdentity,
    listening: &Listening,
) -> anyhow::Result<AgentClient> {
    let certificate_sha256 = agent_client::prepare_certificate(data_dir)?;
    let shared_key = hex::decode(&identity.shared_key).context("the daemon's shared key is not hex")?;
    Ok(AgentClient::new(
        host,
        AgentEndpoint {
            machine_id: identity.machine_id.clone(),
            address: listening.address.clone(),
            port: listening.port,
            shared_key: shared_key.into(),
            certificate_sha256,
        },
    ))
}

/// A daemon that is looked after until [`stop`](Self::stop).
pub struct LocalAgent {
    options: Options,
    stopping: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl LocalAgent {
    /// Adopts or starts the daemon, waits until it listens, then looks after it. `on_listening` is
    /// called each time that it listens anew.
    ///
    /// # Errors
    /// Where it does not come to listen.
    pub async fn start(
        options: Options,
        on_listening: impl Fn(Listening) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let (first, listening) = Running::adopt_or_spawn(&options).await?;
        on_listening(listening);
        let stopping = CancellationToken::new();
        let task = tokio::spawn(look_after(options.clone(), first, on_listening, stopping.clone()));
        Ok(Self { options, stopping, task })
    }

    /// Looks after it no more; it runs on. For the process that takes over: it has adopted it.
    pub fn leave(self) {
        self.task.abort();
    }

    /// Tells the daemon to stop, and waits until it has.
    pub async fn stop(self) {
        self.stopping.cancel();
        if self.task.await.is_err() {
            tracing::error!(agent = self.options.name, "the look-out for a daemon failed");
        }
    }
}

async fn look_after(
    options: Options,
    mut running: Running,
    on_listening: impl Fn(Listening),
    stopping: CancellationToken,
) {
    let mut pause = Duration::from_millis(200);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return running.stop(&options).await,
            () = running.ended() => {}
        }
        tracing::warn!(agent = options.name, "a daemon has ended; starting it again");
        running = loop {
            match Running::adopt_or_spawn(&options).await {
                Ok((running, listening)) => {
                    pause = Duration::from_millis(200);
                    on_listening(listening);
                    break running;
                }
                Err(error) => tracing::error!(agent = options.name, "{error:#}"),
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(10)),
            }
        };
    }
}

/// A daemon's process, ours or adopted.
struct Running {
    pid: Pid,
    /// Readable once the process has ended.
    pidfd: AsyncFd<rustix::fd::OwnedFd>,
    /// Reaped here where it is our own child.
    child: Option<tokio::process::Child>,
}

impl Running {
    async fn adopt_or_spawn(options: &Options) -> anyhow::Result<(Self, Listening)> {
        if let Some(listening) = read_listening(&options.data_dir)
            && is_daemon(listening.pid, &options.data_dir)
            && let Some(pid) = Pid::from_raw(listening.pid)
            && let Ok(pidfd) = watch(pid)
        {
            tracing::info!(agent = options.name, pid = listening.pid, "adopted a running daemon");
            return Ok((Self { pid, pidfd, child: None }, listening));
        }
        Self::spawn(options).await
    }

    async fn spawn(options: &Options) -> anyhow::Result<(Self, Listening)> {
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("can't make the folder {}", options.data_dir.display()))?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(options.data_dir.join("agent.log"))
            .with_context(|| format!("can't write the log of daemon {}", options.name))?;
        let mut command = tokio::process::Command::new(&options.program);
        command
            .arg("run")
            .arg("--data-dir")
            .arg(&options.data_dir)
            .args(["--listen", &options.listen, "--workload-user", &options.workload_user])
            .args(["--on-exit", if options.stop_workloads_on_exit { "stop" } else { "keep" }])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C reaches the host first, which then stops its daemons in order.
            .process_group(0);
        let mut child = command.spawn().with_context(|| {
            format!("can't start {}: is hythe-agent beside hythe?", options.program.display())
        })?;
        let raw = i32::try_from(child.id().context("the daemon ended at once")?)?;
        let pid = Pid::from_raw(raw).context("the daemon has no process id")?;
        let pidfd = watch(pid)?;
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if let Some(listening) = read_listening(&options.data_dir)
                && listening.pid == raw
            {
                return Ok((Self { pid, pidfd, child: Some(child) }, listening));
            }
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the daemon {} ended at its start ({status}): see {}",
                    options.name,
                    options.data_dir.join("agent.log").display()
                );
            }
            if tokio::time::Instant::now() > deadline {
                child.start_kill()?;
                bail!(
                    "the daemon {} did not listen within {} s: see {}",
                    options.name,
                    START_TIMEOUT.as_secs(),
                    options.data_dir.join("agent.log").display()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ended(&mut self) {
        match &mut self.child {
            Some(child) => drop(child.wait().await),
            None => drop(self.pidfd.readable().await),
        }
    }

    async fn stop(mut self, options: &Options) {
        let signal = |signal| rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal);
        if signal(Signal::TERM).is_err() {
            return;
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.ended()).await.is_err() {
            tracing::error!(
                agent = options.name,
                pid = self.pid.as_raw_nonzero().get(),
                "a daemon did not stop in time and is ended"
            );
            let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
            self.ended().await;
        }
    }
}

/// Readable once the process has ended.
#[expect(unsafe_code, reason = "the descriptor is handed over whole")]
fn watch(pid: Pid) -> std::io::Result<AsyncFd<rustix::fd::OwnedFd>> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: the descriptor is open, owned by nothing else, and given away here.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE) }?)
}

fn read_listening(data_dir: &Path) -> Option<Listening> {
    serde_json::from_slice(&std::fs::read(data_dir.join("agent.json")).ok()?).ok()
}

/// Whether this process is the daemon of this folder, and not another that took its number: a workload's
/// shim is the same program.
fn is_daemon(pid: i32, data_dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let alive = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')));
    let named = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        arguments.first().is_some_and(|program| program.ends_with(b"hythe-agent"))
            && arguments.get(1) == Some(&b"run".as_slice())
            && arguments
                .windows(2)
                .any(|pair| pair == [b"--data-dir".as_slice(), data_dir.as_os_str().as_bytes()])
    });
    alive && named
}
