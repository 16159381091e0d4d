//! A `hythe up` of its own, and what can be asked of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Where things are.
pub struct Places {
    pub programs: PathBuf,
    pub adapters: PathBuf,
    pub sample: PathBuf,
    pub results: PathBuf,
}

/// How long anything may take; only a hang takes that long.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The running host.
pub struct Running {
    child: Child,
    folder: PathBuf,
    pub ingress: SocketAddr,
    api: SocketAddr,
    client: reqwest::Client,
}

impl Running {
    /// Starts `hythe up` on the data in `folder`.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(places: &Places, folder: &Path) -> anyhow::Result<Self> {
        let free = || -> anyhow::Result<SocketAddr> {
            Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
        };
        let (ingress, api) = (free()?, free()?);
        let config = folder.join("host.toml");
        std::fs::write(&config, format!("[ingress]\nlisten = [\"{ingress}\"]\n[api]\nlisten = \"{api}\"\n"))?;
        let log = std::fs::File::options().create(true).append(true).open(folder.join("up.log"))?;
        let child = Command::new(places.programs.join("hythe"))
            .arg("up")
            .arg("--sample")
            .arg(&places.sample)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .arg("--config")
            .arg(config)
            .env("HYTHE_ADAPTERS_DIR", &places.adapters)
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("hythe can't be started")?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, folder: folder.to_owned(), ingress, api, client })
    }

    /// Waits for the first 200 of a host behind ingress.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn first_answer(&mut self, host: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let url = format!("http://{}/healthz", self.ingress);
        while begun.elapsed() < PATIENCE {
            let answer = self.client.get(&url).header("host", host).header("accept", "*/*").send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(begun.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("hythe up ended ({status}): see {}", self.folder.join("up.log").display());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{host} does not answer: see {}", self.folder.join("up.log").display())
    }

    /// Waits until all of `hythe up` is ready: it says how to stop it.
    ///
    /// # Errors
    /// Where it does not come to that.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if std::fs::read_to_string(self.folder.join("up.log"))?.contains("Ctrl-C") {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("hythe up is not ready: see {}", self.folder.join("up.log").display())
    }

    /// One call of the API.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let token = std::fs::read_to_string(self.folder.join("data/admin-token"))?;
        let mut request =
            self.client.request(method, format!("http://{}{path}", self.api)).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path} answers {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// The id of a project's primary deployment.
    ///
    /// # Errors
    /// Where it has none.
    pub async fn primary(&self, project: &str) -> anyhow::Result<String> {
        let project = self.call(Method::GET, &format!("/v1/projects/{project}"), None).await?;
        Ok(project["primaryDeploymentId"].as_str().context("no primary deployment")?.to_owned())
    }

    /// The local port on which a deployment's application listens.
    ///
    /// # Errors
    /// Where it does not say.
    pub async fn application(&self, deployment: &str) -> anyhow::Result<SocketAddr> {
        let body = serde_json::json!({ "argv": ["sh", "-c", "echo $PORT"] });
        let result =
            self.call(Method::POST, &format!("/v1/deployments/{deployment}/exec"), Some(body)).await?;
        let port: u16 = result["stdout"].as_str().unwrap_or_default().trim().parse().context("no port")?;
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Memory that is this process's own, in MiB (PSS: shared pages divided among their users).
    pub fn memory_mib(&self) -> f64 {
        memory_mib(self.child.id())
    }

    /// The same of its daemons, one by one.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn daemons_memory_mib(&self) -> anyhow::Result<Vec<f64>> {
        let mut found = Vec::new();
        for kind in ["agents", "machines"] {
            for entry in std::fs::read_dir(self.folder.join("data").join(kind))?.flatten() {
                let text = std::fs::read(entry.path().join("agent.json"))?;
                let listening: Value = serde_json::from_slice(&text)?;
                let pid = listening["pid"].as_u64().context("no pid")?;
                found.push(memory_mib(u32::try_from(pid)?));
            }
        }
        Ok(found)
    }

    /// Stops it as Ctrl-C does.
    ///
    /// # Errors
    /// Where it does not end well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no pid")?;
        kill_process(pid, Signal::INT)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("hythe up ended with {status}: see {}", self.folder.join("up.log").display());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("hythe up does not stop")
    }
}

fn memory_mib(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
