//! Another process in this one's place: a new binary, or the same with another configuration.
//!
//! The successor starts as any host does, with the sockets and locks of this one; it adopts the database and the
//! daemons, but owns nothing. When it serves, it says so, owns all, and this process leaves. Till then both accept
//! from the same sockets, so nothing is refused; and whatever becomes of the successor before its word, it has
//! changed nothing here.
//!
//! Deliberately absent: handing over open connections. They live on in the old process until they end, or its
//! grace (`ingress.drain`) does.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::data_dir::DataDir;
use crate::host::Host;

/// Names of what is handed over.
pub const HOST_LOCK: &str = "host-lock";
pub const POSTGRES_LOCK: &str = "postgres-lock";
pub const READY: &str = "ready";

/// What the successor writes when it serves.
const WORD: &[u8] = b"ready\n";
/// Where the last attempt's outcome stands, in the data directory.
const OUTCOME: &str = "upgrade.json";

/// How this program was called, for the next one.
static CALLED: OnceLock<OsString> = OnceLock::new();

/// Which program takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// What lies now where this one was started from.
    Installed,
    /// This very one, even if another lies there now.
    Same,
}

/// What became of an attempt to put another process in place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The process that was asked.
    pub from: u32,
    /// The one that serves instead.
    pub to: Option<u32>,
    pub error: Option<String>,
}

/// Remembers how this program was called. At the very start: relative paths, and the file itself, are still the same.
pub fn remember_call() {
    let called = std::env::args_os().next().unwrap_or_else(|| "hythe".into());
    let called = match Path::new(&called) {
        path if path.components().count() > 1 => {
            std::path::absolute(path).map(PathBuf::into_os_string).unwrap_or(called)
        }
        // Looked for in PATH each time.
        _ => called,
    };
    let _ = CALLED.set(called);
}

/// Starts it and waits until it serves; then this process is to [leave](Host::leave). Dropping this before that ends
/// the successor.
///
/// # Errors
/// Why it does not serve. It has ended then, and all is as before.
pub async fn start(host: &Host, program: Program) -> anyhow::Result<u32> {
    let called = CALLED.get().cloned().unwrap_or_else(|| "hythe".into());
    let mut hand_over = host.hand_over().await?;
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    hand_over.add(READY, &write)?;
    drop(write);
    let mut command = std::process::Command::new(match program {
        Program::Installed => called.clone(),
        // In the child this is its parent's program, until it becomes it.
        Program::Same => "/proc/self/exe".into(),
    });
    command.arg0(&called).args(std::env::args_os().skip(1));
    hand_over.give_to(&mut command)?;
    let mut command = Command::from(command);
    let child = command.spawn().with_context(|| format!("can't start {}", called.display()))?;
    // With it go our copies of what was handed over, the pipe's end among them.
    drop(command);
    let mut successor = Starting { child, serves: false };
    let pid = successor.child.id().context("the new process ended at once")?;
    tracing::info!(pid, "started the process that shall take over");
    let limit = host.config().upgrade.timeout;
    let outcome = tokio::time::timeout(limit, successor.word(read)).await;
    outcome.unwrap_or_else(|_| Err(too_slow(limit)))?;
    successor.serves = true;
    crate::systemd::notify(&[crate::systemd::NotifyState::MainPid(pid)]);
    Ok(pid)
}

fn too_slow(limit: Duration) -> anyhow::Error {
    anyhow::anyhow!(
        "the new process did not serve within {} s (upgrade.timeout) and was ended: its log above tells how far it came",
        limit.as_secs()
    )
}

/// A successor that is ended where it is not let serve.
struct Starting {
    child: Child,
    serves: bool,
}

impl Starting {
    async fn word(&mut self, read: OwnedFd) -> anyhow::Result<()> {
        let mut word = Vec::new();
        pipe::Receiver::from_owned_fd(read)?.take(WORD.len() as u64).read_to_end(&mut word).await?;
        if word == WORD {
            return Ok(());
        }
        // Nobody has the other end any more.
        let status = self.child.wait().await?;
        bail!("the new process ended before it served ({status}): its log above tells why")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.serves {
            // By force: whatever it would do in order is not its to do.
            let _ = self.child.start_kill();
        }
    }
}

/// In the successor: tells the process before this one.
pub fn tell_ready(ready: OwnedFd) {
    if let Err(error) = std::fs::File::from(ready).write_all(WORD) {
        tracing::warn!(%error, "the process before this one has gone already");
    }
}

/// Writes down how it went, for `hythe upgrade`.
pub fn write_outcome(data_dir: &DataDir, result: &anyhow::Result<u32>) {
    let outcome = Outcome {
        from: std::process::id(),
        to: result.as_ref().ok().copied(),
        error: result.as_ref().err().map(|error| format!("{error:#}")),
    };
    let written = serde_json::to_vec(&outcome)
        .map_err(anyhow::Error::from)
        .and_then(|text| crate::files::write_private(&data_dir.path().join(OUTCOME), &text));
    if let Err(error) = written {
        tracing::warn!("the outcome can't be written down: {error:#}");
    }
}

/// What the process `from` wrote down; `None`: nothing yet.
pub fn read_outcome(data_dir: &Path, from: u32) -> Option<Outcome> {
    let outcome: Outcome = serde_json::from_slice(&std::fs::read(data_dir.join(OUTCOME)).ok()?).ok()?;
    (outcome.from == from).then_some(outcome)
}

/// Forgets earlier attempts.
pub fn forget_outcome(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join(OUTCOME));
}
