//! A whole host under test: the real `hythe serve`, its daemons, its database, on free ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use api_types::{Deployment, Problem};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, eventually, program, signal};

/// How a host under test differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// More of the host's configuration (TOML), after the listeners.
    pub config: String,
    /// None: an embedded one in the data directory.
    pub database_url: Option<String>,
    /// `HYTHE_FAULTS`
    pub faults: Option<String>,
    /// Time-outs for tests that wait for leases.
    pub short_leases: bool,
    /// The program; none: the one that was built. Its daemon and components are those that were built in any case.
    pub program: Option<PathBuf>,
    /// Data directory of another host, whose identity towards machines this one shares.
    pub share_identity: Option<PathBuf>,
}

/// A folder, and the host that runs in it.
pub struct TestHost {
    options: HostOptions,
    folder: TempDir,
    process: Process,
    pub api: SocketAddr,
    pub ingress: SocketAddr,
    /// The same by TLS, with the development CA's certificates where the options name no others.
    pub https: SocketAddr,
    client: reqwest::Client,
    token: String,
}

/// Ports that were free a moment ago.
///
/// # Errors
/// Where there are none.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners: Vec<_> =
        (0..N).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<_> =
        listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("too few addresses"))
}

impl TestHost {
    /// Starts a host in a new folder and waits until it answers.
    ///
    /// # Errors
    /// Where it does not; with what it printed.
    pub async fn start(options: HostOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("hythe-test-").tempdir()?;
        // Workloads' users pass through.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let [api, ingress, https] = free_addresses()?;
        let leases = if options.short_leases {
            "[deployments]\nlease = \"2s\"\ninspect_every = \"300ms\"\nhealth_every = \"1s\"\n"
        } else {
            "[deployments]\ninspect_every = \"300ms\"\nhealth_every = \"1s\"\n"
        };
        let config = format!(
            "[ingress]\nlisten = [\"{ingress}\", {{ address = \"{https}\", tls = true }}]\nworkers = 1\n[api]\nlisten = \"{api}\"\n{leases}{}",
            options.config
        );
        std::fs::write(folder.path().join("host.toml"), config)?;
        if let Some(other) = &options.share_identity {
            copy_folder(&other.join("identity"), &folder.path().join("data/identity"))?;
            copy_folder(&other.join("sources"), &folder.path().join("data/sources"))?;
        }
        let process = spawn(folder.path(), &options)?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut host = Self { options, folder, process, api, ingress, https, client, token: String::new() };
        host.ready().await?;
        Ok(host)
    }

    async fn ready(&mut self) -> Result<()> {
        let (client, url) = (self.client.clone(), format!("http://{}/v1/health", self.api));
        let process = &mut self.process;
        let answered = eventually("the host to answer", async || {
            if process.has_ended()? {
                return Ok(Some(false));
            }
            Ok(client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(true))
        })
        .await;
        if !matches!(answered, Ok(true)) {
            bail!("the host did not start: {}", self.process.output());
        }
        if let Ok(token) = std::fs::read_to_string(self.data_dir().join("admin-token")) {
            self.token = token;
        }
        Ok(())
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its configuration's file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("host.toml")
    }

    /// The process that has the data directory: the one that was started, or one that took over since.
    ///
    /// # Errors
    /// Where none has.
    pub fn pid(&self) -> Result<u32> {
        Ok(std::fs::read_to_string(self.data_dir().join("host.lock"))?.trim().parse()?)
    }

    /// For another host on the same database.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Takes the token of the host that made it.
    pub fn set_token(&mut self, token: &str) {
        token.clone_into(&mut self.token);
    }

    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `kill -9` of the host alone.
    ///
    /// # Errors
    /// Where it is gone already.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.ended().await?;
        Ok(())
    }

    /// Starts it again in the same folder, without faults.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.options.faults = None;
        self.run().await
    }

    /// As [`restart`](Self::restart), with faults.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart_with_faults(&mut self, faults: &str) -> Result<()> {
        self.options.faults = Some(faults.to_owned());
        self.run().await
    }

    async fn run(&mut self) -> Result<()> {
        self.process = spawn(self.folder.path(), &self.options)?;
        self.ready().await
    }

    /// Stops the host as Ctrl-C does, and waits until it has ended.
    ///
    /// # Errors
    /// Where it does not end, or not well.
    pub async fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::INT)?;
        match self.process.ended().await? {
            Some(0) => Ok(()),
            code => bail!("the host ended with {code:?}: {}", self.process.output()),
        }
    }

    /// Stops the process that took over from the one that was started, as Ctrl-C does, and waits until both have ended.
    ///
    /// # Errors
    /// Where one does not end.
    pub async fn stop_successor(mut self) -> Result<()> {
        let pid = self.pid()?;
        signal(pid, Signal::INT)?;
        eventually("the host to end", async || Ok((!crate::process::is_alive(pid)).then_some(()))).await?;
        self.process.ended().await?;
        Ok(())
    }

    /// One request to the API.
    ///
    /// # Errors
    /// Where no answer came.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, String)> {
        let mut request =
            self.client.request(method, format!("http://{}{path}", self.api)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// One request to the API that must succeed.
    ///
    /// # Errors
    /// The problem that came instead.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T> {
        let (status, text) = self.send(method, path, body).await?;
        if !status.is_success() {
            bail!("{path} answers {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{path} answers {text}"))
    }

    /// One request to the API that must be refused.
    ///
    /// # Errors
    /// Where it is not.
    pub async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> Result<Problem> {
        let (status, text) = self.send(method, path, body).await?;
        if status.is_success() {
            bail!("{path} answers {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{path} answers {text}"))
    }

    /// Uploads an archive of these files (name, mode, text); its digest.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn upload(&self, files: &[(String, u32, Vec<u8>)]) -> Result<String> {
        let archive = archive(files)?;
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&archive));
        let url = format!("http://{}/v1/sources/{digest}", self.api);
        let answer = self.client.put(url).bearer_auth(&self.token).body(archive).send().await?;
        if !answer.status().is_success() {
            bail!("the upload was refused: {}", answer.text().await?);
        }
        Ok(digest)
    }

    /// Makes a project where it is missing, and a deployment of it.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn deploy(&self, slug: &str, deployment: Value) -> Result<Deployment> {
        let (status, text) = self.send(Method::POST, "/v1/projects", Some(json!({ "slug": slug }))).await?;
        if !status.is_success() && status != StatusCode::CONFLICT {
            bail!("the project was refused: {text}");
        }
        self.call(Method::POST, &format!("/v1/projects/{slug}/deployments"), Some(deployment)).await
    }

    /// The only deployment of a project, for a test whose host died or froze before it answered.
    ///
    /// # Errors
    /// Where there is another number of them.
    pub async fn only_deployment(&self, slug: &str) -> Result<Deployment> {
        let page: Value = self.call(Method::GET, &format!("/v1/projects/{slug}/deployments"), None).await?;
        match page["items"].as_array().map(Vec::as_slice) {
            Some([only]) => Ok(serde_json::from_value(only.clone())?),
            _ => bail!("not one deployment: {page}"),
        }
    }

    /// The deployment as it is.
    ///
    /// # Errors
    /// Where the API does not say.
    pub async fn deployment(&self, id: impl std::fmt::Display) -> Result<Deployment> {
        self.call(Method::GET, &format!("/v1/deployments/{id}"), None).await
    }

    /// Waits until a deployment is as `condition` says.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn wait(
        &self,
        id: impl std::fmt::Display,
        what: &str,
        condition: impl Fn(&Deployment) -> bool,
    ) -> Result<Deployment> {
        let mut last = None;
        let waited = eventually(what, async || {
            let deployment = self.deployment(&id).await?;
            let reached = condition(&deployment);
            last = Some(deployment.clone());
            Ok(reached.then_some(deployment))
        })
        .await;
        waited.with_context(|| {
            let shown = last.map(|last| {
                format!(
                    "{} incarnation {} {:?} {:?}",
                    last.state, last.incarnation, last.detail, last.operation
                )
            });
            let output = self.process.output();
            let lines: Vec<_> = output.lines().collect();
            format!(
                "it is {shown:?}\nthe host printed last:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            )
        })
    }

    /// Waits until it runs and is healthy.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn healthy(&self, id: impl std::fmt::Display) -> Result<Deployment> {
        self.wait(id, "a healthy deployment", |deployment| deployment.health == model::Health::Healthy).await
    }

    /// A request builder to a host name behind ingress, found without DNS.
    ///
    /// # Errors
    /// Where no client can be made.
    pub fn browse(&self, method: Method, host: &str, path: &str) -> Result<reqwest::RequestBuilder> {
        let client = reqwest::Client::builder().no_proxy().resolve(host, self.ingress).build()?;
        Ok(client.request(method, format!("http://{host}:{}{path}", self.ingress.port())))
    }

    /// Starts a daemon as a machine of its own, joined with a token.
    ///
    /// # Errors
    /// Where it does not join.
    pub async fn machine(&self, name: &str) -> Result<TestMachine> {
        let registration: Value = self
            .call(Method::POST, "/v1/machine-registrations", Some(json!({ "name": name, "type": "local" })))
            .await?;
        let token = registration["token"].as_str().context("no token")?;
        let data_dir = self.folder.path().join(name);
        std::fs::create_dir_all(&data_dir)?;
        std::fs::set_permissions(&data_dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let [address] = free_addresses()?;
        let output = Command::new(program("hythe-agent")?)
            .args(["join", "--data-dir"])
            .arg(&data_dir)
            .args(["--host", &format!("http://{}", self.api), "--token", token, "--name", name])
            .args(["--address", "127.0.0.1", "--port", &address.port().to_string()])
            .output()?;
        if !output.status.success() {
            bail!("{name} did not join: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut machine = TestMachine { data_dir, address, process: None };
        machine.run().await?;
        Ok(machine)
    }

    /// The process id of a daemon that the host runs beside itself.
    ///
    /// # Errors
    /// Where there is none.
    pub fn agent_pid(&self, name: &str) -> Result<u32> {
        listening_pid(&self.data_dir().join("agents").join(name))
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        // What outlives the host: its daemons (which end their workloads), then its database.
        let _ = self.process.signal(Signal::CONT);
        let _ = self.process.signal(Signal::KILL);
        // A process that took over; never another that has the number by now.
        if let Ok(pid) = self.pid()
            && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                String::from_utf8_lossy(&line).contains(&*self.data_dir().to_string_lossy())
            })
        {
            let _ = signal(pid, Signal::KILL);
        }
        if let Ok(agents) = std::fs::read_dir(self.data_dir().join("agents")) {
            for agent in agents.flatten() {
                if let Ok(pid) = listening_pid(&agent.path()) {
                    end(pid);
                }
            }
        }
        let postmaster = glob_postmaster(&self.data_dir().join("postgres"));
        if let Some(pid) = postmaster {
            let _ = signal(pid, Signal::QUIT);
        }
    }
}

/// A machine of a test: a daemon that joined.
pub struct TestMachine {
    pub data_dir: PathBuf,
    pub address: SocketAddr,
    process: Option<Process>,
}

impl TestMachine {
    /// Starts the daemon and waits until it listens.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn run(&mut self) -> Result<()> {
        let mut command = Command::new(program("hythe-agent")?);
        command.arg("run").arg("--data-dir").arg(&self.data_dir);
        command.args(["--listen", &self.address.to_string(), "--on-exit", "stop"]);
        let process = Process::spawn(command, &self.data_dir.join("agent.log"))?;
        let pid = process.pid();
        let data_dir = self.data_dir.clone();
        self.process = Some(process);
        eventually("a daemon to listen", async || Ok((listening_pid(&data_dir)? == pid).then_some(())))
            .await
            .with_context(|| std::fs::read_to_string(self.data_dir.join("agent.log")).unwrap_or_default())
    }

    /// `kill -9` of the daemon alone.
    ///
    /// # Errors
    /// Where it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the daemon does not run")?;
        process.signal(Signal::KILL)?;
        process.ended().await?;
        Ok(())
    }

    /// What the daemon printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("agent.log")).unwrap_or_default()
    }
}

impl Drop for TestMachine {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            end(process.pid());
        }
    }
}

/// Asks a daemon to end with its workloads, and waits a bounded while.
fn end(pid: u32) {
    if signal(pid, Signal::CONT).is_err() || signal(pid, Signal::TERM).is_err() {
        return;
    }
    for _ in 0..1_500 {
        if !crate::process::is_alive(pid) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = signal(pid, Signal::KILL);
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for entry in std::fs::read_dir(from)?.flatten() {
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn listening_pid(data_dir: &Path) -> Result<u32> {
    let listening: Value = serde_json::from_slice(&std::fs::read(data_dir.join("agent.json"))?)?;
    Ok(u32::try_from(listening["pid"].as_u64().context("no pid")?)?)
}

/// The postmaster below a folder, wherever its cluster lies.
#[must_use]
pub fn glob_postmaster(folder: &Path) -> Option<u32> {
    let direct = folder.join("postmaster.pid");
    let read = |file: &Path| std::fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok();
    if let Some(pid) = read(&direct) {
        return Some(pid);
    }
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| read(&entry.path().join("postmaster.pid")))
}

fn spawn(folder: &Path, options: &HostOptions) -> Result<Process> {
    let mut command = match &options.program {
        Some(own) => {
            let built = program("hythe")?;
            let adapters = built.ancestors().nth(2).context("no folder")?.join("adapters");
            let mut command = Command::new(own);
            command.env("HYTHE_AGENT", program("hythe-agent")?).env("HYTHE_ADAPTERS_DIR", adapters);
            command
        }
        None => Command::new(program("hythe")?),
    };
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--config")
        .arg(folder.join("host.toml"));
    command.env_remove("DATABASE_URL").env_remove("HYTHE_TOKEN").env_remove("HYTHE_MASTER_KEY");
    command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info,reconciler=debug".to_owned()));
    if let Some(url) = &options.database_url {
        command.env("DATABASE_URL", url);
        // Hosts on one database share the key under which machines' keys lie in it.
        command.env("HYTHE_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    }
    if let Some(faults) = &options.faults {
        command.env("HYTHE_FAULTS", faults);
    }
    Process::spawn(command, &folder.join("host.log"))
}

/// A tar.zst of these files (name, mode, bytes).
///
/// # Errors
/// Where a name does not fit.
pub fn archive(files: &[(String, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 0)?);
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        tar.append_data(&mut header, name, bytes.as_slice())?;
    }
    Ok(tar.into_inner()?.finish()?)
}
