//! A host of our own beside whatever else runs on this machine: its own data, its own ports, and the
//! command line that talks to it.

use std::io::{BufRead as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::command::Command;

/// What `hythe up` prints last when all is ready: how to stop it.
const READY: &str = "Ctrl-C";
/// How long it may take to be ready; only a hang takes that long.
const PATIENCE: Duration = Duration::from_secs(180);

/// `hythe up` without the sample project. Stopped when dropped.
pub struct TrialHost {
    child: Child,
    api: String,
    /// Removed with the host, after it has stopped.
    data: tempfile::TempDir,
    log: PathBuf,
    stopped: bool,
}

impl TrialHost {
    /// Starts it on new data in the system's folder for temporary files, and waits until it is ready. What it prints goes to
    /// `<folder>/hythe.log`.
    ///
    /// # Errors
    /// Where it ends or hangs before it is ready; the log says why.
    pub fn start(folder: &Path) -> Result<Self> {
        // Not below the folder: where that is private, as root, the database's and workloads' users could not
        // get in.
        let data =
            tempfile::Builder::new().prefix("hythe-trial-").tempdir().context("can't make a folder")?;
        let log = folder.join("hythe.log");
        std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let [ingress, api] = free_ports()?;
        let config = folder.join("host.toml");
        let text =
            format!("[ingress]\nlisten = [\"127.0.0.1:{ingress}\"]\n\n[api]\nlisten = \"127.0.0.1:{api}\"\n");
        std::fs::write(&config, text).with_context(|| format!("can't write {}", config.display()))?;

        let errors = std::fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let mut output = errors.try_clone().context("can't share the log file")?;
        let mut child = Command::new(build::program("hythe"))
            .args(["up", "--no-sample", "--data-dir"])
            .arg(data.path())
            .arg("--config")
            .arg(&config)
            .spawn(Stdio::piped(), errors)?;
        let lines = std::io::BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // To its end, also when nobody waits any more: a full pipe would stop the host.
            for line in lines.map_while(Result::ok) {
                let _ = writeln!(output, "{line}");
                if line.contains(READY) {
                    let _ = tell.send(());
                }
            }
        });
        let host = Self { child, api: format!("http://127.0.0.1:{api}"), data, log, stopped: false };
        match told.recv_timeout(PATIENCE) {
            Ok(()) => Ok(host),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("`hythe up` ended before it was ready: see {}", host.log.display())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => bail!(
                "`hythe up` was not ready (it did not print {READY:?}) after {} s: see {}",
                PATIENCE.as_secs(),
                host.log.display()
            ),
        }
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The command line, pointed at this host.
    pub fn hythe<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut words = self.words(arguments).into_iter();
        let program = words.next().unwrap_or_default();
        Command::new(program).args(words)
    }

    /// The same as words, for others to run.
    pub fn words<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let data = format!("HYTHE_DATA_DIR={}", self.data.path().display());
        let program = build::program("hythe").display().to_string();
        let pointed = ["env".to_owned(), data, program, "--api".to_owned(), self.api.clone()];
        pointed.into_iter().chain(arguments.into_iter().map(str::to_owned)).collect()
    }

    /// Stops it as Ctrl-C does.
    ///
    /// # Errors
    /// Where it does not end well.
    pub fn stop(mut self) -> Result<()> {
        let status = self.interrupt()?;
        if !status.success() {
            bail!("`hythe up` ended badly after Ctrl-C ({status}): see {}", self.log.display());
        }
        Ok(())
    }

    fn interrupt(&mut self) -> Result<ExitStatus> {
        self.stopped = true;
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).output()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for TrialHost {
    fn drop(&mut self) {
        if !self.stopped && self.interrupt().is_err() {
            let _ = self.child.kill();
        }
    }
}

/// Ports that nobody listens on now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
        *port = listener.local_addr().context("no free port on 127.0.0.1")?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }
}
