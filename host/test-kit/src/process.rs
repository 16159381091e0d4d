//! Real processes under test: started, frozen, killed, and never left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a condition may take to come true. Only a hang takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` gives something. `what` says what was waited for.
///
/// # Errors
/// After [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let last = condition().await;
        if let Ok(Some(found)) = last {
            return Ok(found);
        }
        if tokio::time::Instant::now() > deadline {
            let why = last.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("waited {} s for {what}{why}", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A program that was built with the tests, beside the test's own.
///
/// # Errors
/// Where it was not built, with what to type.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test has no folder")?;
    let program = folder.join(name);
    if !program.is_file() {
        bail!("{} is not there: run `./x build` first", program.display());
    }
    Ok(program)
}

/// A child process that ends with its owner.
pub struct Process {
    child: Child,
    /// Where its output goes.
    pub log: PathBuf,
}

impl Process {
    /// Starts it in a process group of its own, its output appended to `log`.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let output = std::fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(pid(self.child.id())?, signal)?)
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// Where that can't be told.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it has ended, and gives its exit code; none after a signal.
    ///
    /// # Errors
    /// After [`PATIENCE`].
    pub async fn ended(&mut self) -> Result<Option<i32>> {
        let child = &mut self.child;
        eventually("a process to end", async || Ok(child.try_wait()?.map(|status| status.code()))).await
    }

    /// Waits until it is stopped (SIGSTOP).
    ///
    /// # Errors
    /// After [`PATIENCE`].
    pub async fn stopped(&self) -> Result<()> {
        let pid = self.child.id();
        eventually("a process to be stopped", async || Ok((state(pid) == Some('T')).then_some(()))).await
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state letter of `/proc/<pid>/stat`; none where there is no such process.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether a process is there and no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z'))
}

/// Sends a signal to any process.
///
/// # Errors
/// Where it is gone.
pub fn signal(target: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(pid(target)?, signal)?)
}

fn pid(raw: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(raw)?).context("not a process id")
}
