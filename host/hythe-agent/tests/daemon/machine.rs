//! A machine for a test: a data folder, a daemon in it, and the host that it belongs to.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_api::frame::{Decoder, Frame};
use agent_api::{
    ExecRequest, Exit, LogLine, LogQuery, Problem, RegistrationResponse, RestartPolicy, StopRequest,
    WorkloadPhase, WorkloadService, WorkloadSpec, WorkloadStatus, path,
};
use agent_client::{AgentClient, AgentEndpoint, AgentError, Body, HostIdentity, Request, ResponseBody};
use futures_util::StreamExt;
use http::{Method, StatusCode};
use model::{DeploymentId, ExecutionId, Fence};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_hythe-agent");
const DEADLINE: Duration = Duration::from_secs(30);

/// Looks until it is so. Panics with `what` where it does not come about.
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub struct Machine {
    pub folder: TempDir,
    pub host: HostIdentity,
    pub shared_key: Vec<u8>,
    daemon: Option<Child>,
    pub arguments: Vec<String>,
    pub faults: Option<String>,
    port: u16,
    /// Where the next daemon listens.
    pub keep_port: Option<u16>,
}

impl Machine {
    /// A machine that has joined, with its daemon running.
    pub async fn start() -> Self {
        let mut machine = Self::joined();
        machine.run().await;
        machine
    }

    /// A machine that has joined.
    pub fn joined() -> Self {
        let folder = tempfile::Builder::new().prefix("hythe-agent-").tempdir_in("/tmp").unwrap();
        // Workloads' own users pass through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let host = HostIdentity::load_or_create(&folder.path().join("host")).unwrap();
        let mut shared_key = vec![0; 32];
        getrandom::fill(&mut shared_key).unwrap();
        let identity = RegistrationResponse {
            machine_id: "mach_01h455vb4pex5vsknk084sn02q".to_owned(),
            shared_key: hex::encode(&shared_key),
            host_certificate_sha256: host.certificate_sha256().to_owned(),
        };
        let data = folder.path().join("data");
        agent_client::prepare_certificate(&data).unwrap();
        fs::write(data.join("identity.json"), serde_json::to_vec(&identity).unwrap()).unwrap();
        Self {
            folder,
            host,
            shared_key,
            daemon: None,
            arguments: Vec::new(),
            faults: None,
            port: 0,
            keep_port: None,
        }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args([
            "run",
            "--listen",
            &format!("127.0.0.1:{}", self.keep_port.unwrap_or(0)),
            "--data-dir",
        ]);
        command.arg(self.data()).args(&self.arguments);
        command.env("HYTHE_LOG", "debug").env("OF_THE_DAEMON", "secret").stdin(Stdio::null());
        if let Some(faults) = &self.faults {
            command.env("HYTHE_FAULTS", faults);
        }
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("daemon.log"));
        command.stderr(log.unwrap());
        command
    }

    /// Starts the daemon without waiting for it.
    pub fn launch(&mut self) -> u32 {
        let daemon = self.command().spawn().unwrap();
        let pid = daemon.id();
        self.daemon = Some(daemon);
        pid
    }

    /// Starts the daemon; on return it listens.
    pub async fn run(&mut self) {
        let pid = self.launch();
        self.port = wait_until("the daemon listens", async || {
            let listening: serde_json::Value =
                serde_json::from_slice(&fs::read(self.data().join("agent.json")).ok()?).ok()?;
            (listening["pid"] == pid).then(|| u16::try_from(listening["port"].as_u64().unwrap()).unwrap())
        })
        .await;
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// `kill -9` of the daemon alone.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Waits until the daemon has ended by itself.
    pub async fn ended(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        wait_until("the daemon ends", async || daemon.try_wait().unwrap()).await;
    }

    /// SIGTERM to the daemon, and its end.
    pub async fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended().await;
        assert!(!self.data().join("agent.json").exists());
    }

    pub fn endpoint(&self) -> AgentEndpoint {
        AgentEndpoint {
            machine_id: "mach_01h455vb4pex5vsknk084sn02q".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            shared_key: self.shared_key.clone().into(),
            certificate_sha256: agent_client::prepare_certificate(&self.data()).unwrap(),
        }
    }

    pub fn client(&self) -> AgentClient {
        AgentClient::new(&self.host, self.endpoint())
    }

    /// A new deployment on this machine.
    pub fn deployment(&self) -> Deployment<'_> {
        Deployment { machine: self, id: DeploymentId::new(), incarnation: 1, operation: 1 }
    }

    /// The same deployment after the machine was changed.
    pub fn again(&self, (id, incarnation, operation): (DeploymentId, u64, u64)) -> Deployment<'_> {
        Deployment { machine: self, id, incarnation, operation }
    }

    /// Stores an archive with these files, and says its digest.
    pub async fn upload(&self, files: &[(&str, &[u8], u32)]) -> String {
        let archive = archive(files);
        let digest = hex::encode(Sha256::digest(&archive));
        let response = self.put_source(&digest, archive).await.unwrap();
        assert_eq!(response, StatusCode::CREATED);
        digest
    }

    pub async fn put_source(&self, digest: &str, archive: Vec<u8>) -> Result<StatusCode, AgentError> {
        // In pieces, as the host does.
        let pieces: Vec<_> = archive.chunks(64 * 1024).map(|piece| Ok(piece.to_vec().into())).collect();
        let request = Request {
            method: Method::PUT,
            path: path::source(digest),
            body: Body::stream(futures_util::stream::iter(pieces)),
            ..Request::default()
        };
        Ok(self.client().send(request).await?.accepted().await?.status)
    }

    /// All processes that have the text in their environment or command line.
    pub fn processes_with(text: &str) -> Vec<u32> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let has = |pid: &u32, file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        pids.filter(|pid| has(pid, "environ") || has(pid, "cmdline")).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let place = self.folder.path().display().to_string();
        loop {
            let left = Self::processes_with(&place);
            if left.is_empty() {
                break;
            }
            for pid in left {
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default();
            eprintln!("--- the daemon's log\n{log}---");
        }
        remove_groups(&self.data());
    }
}

/// What a killed daemon leaves of empty control groups.
fn remove_groups(data: &Path) {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
    let name = format!("hythe-agent-{}", hex::encode(&digest[..4]));
    for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let base = Path::new(mount).join(&name);
        // Busy for a moment yet, as long as somebody has to take up what was killed.
        let begun = Instant::now();
        while base.exists() && begun.elapsed() < Duration::from_secs(2) {
            for group in fs::read_dir(&base).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(group.path());
            }
            let _ = fs::remove_dir(&base);
        }
    }
}

/// A tar.zst of files with their modes.
pub fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    zstd::encode_all(builder.into_inner().unwrap().as_slice(), 1).unwrap()
}

/// The program of `examples/echo.rs`.
pub fn echo_program() -> Vec<u8> {
    let path = Path::new(PROGRAM).parent().unwrap().join("examples/echo");
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: `cargo build -p hythe-agent --example echo` makes it", path.display())
    })
}

/// A command line for `sh`.
pub fn sh(script: &str) -> WorkloadSpec {
    WorkloadSpec {
        command: shell(script),
        start_timeout_ms: 60_000,
        restart: RestartPolicy { max_attempts: 3, backoff_ms: 1, max_backoff_ms: 4 },
        ..WorkloadSpec::default()
    }
}

pub fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// A program that notes its number in `pids` and goes on for ever.
pub fn forever() -> WorkloadSpec {
    sh("echo $$ >> pids; exec sleep 1000000")
}

/// The echo server.
pub fn echo(source: String) -> WorkloadSpec {
    WorkloadSpec {
        command: vec!["./echo".to_owned()],
        source: Some(source),
        services: vec![WorkloadService { name: "web".to_owned(), port: 3000 }],
        ..WorkloadSpec::default()
    }
}

/// A deployment as its host sees it: each changing call is a later operation.
pub struct Deployment<'a> {
    pub machine: &'a Machine,
    pub id: DeploymentId,
    pub incarnation: u64,
    pub operation: u64,
}

impl Deployment<'_> {
    /// What [`Machine::again`] takes.
    pub fn ticket(&self) -> (DeploymentId, u64, u64) {
        (self.id, self.incarnation, self.operation)
    }

    pub fn fence(&self) -> Fence {
        Fence { deployment: self.id, generation: 1, incarnation: self.incarnation, operation: self.operation }
    }

    pub fn folder(&self) -> PathBuf {
        self.machine.data().join("workloads").join(self.id.to_string())
    }

    pub fn app(&self) -> PathBuf {
        self.folder().join("app")
    }

    /// Sends with the fence as it is.
    pub async fn call(
        &self,
        method: Method,
        path: String,
        body: Vec<u8>,
    ) -> Result<WorkloadStatus, AgentError> {
        let request = Request {
            method,
            path,
            fence: Some(self.fence()),
            body: Body::Bytes(body.into()),
            ..Request::default()
        };
        self.machine.client().send(request).await?.json(1 << 20).await
    }

    pub async fn put(&self, spec: &WorkloadSpec) -> Result<WorkloadStatus, AgentError> {
        self.call(Method::PUT, path::workload(&self.id.to_string()), serde_json::to_vec(spec).unwrap()).await
    }

    pub async fn stop(&self, grace_ms: u64) -> Result<WorkloadStatus, AgentError> {
        let body = serde_json::to_vec(&StopRequest { grace_ms }).unwrap();
        self.call(Method::POST, path::stop(&self.id.to_string()), body).await
    }

    pub async fn delete(&self) -> Result<WorkloadStatus, AgentError> {
        self.call(Method::DELETE, path::workload(&self.id.to_string()), Vec::new()).await
    }

    pub async fn status(&self) -> Result<WorkloadStatus, AgentError> {
        let request = Request { path: path::workload(&self.id.to_string()), ..Request::default() };
        self.machine.client().send(request).await?.json(1 << 20).await
    }

    pub async fn until(&self, phase: WorkloadPhase) -> WorkloadStatus {
        let mut last = None;
        let what = format!("phase {phase:?}");
        wait_until(&what, async || {
            let status = self.status().await.ok()?;
            let found = (status.phase == phase).then(|| status.clone());
            if last.as_ref() != Some(&status) {
                eprintln!("{status:?}");
                last = Some(status);
            }
            found
        })
        .await
    }

    /// Starts it and waits until it runs.
    pub async fn up(&self, spec: &WorkloadSpec) -> WorkloadStatus {
        self.put(spec).await.unwrap();
        self.until(WorkloadPhase::Running).await
    }

    /// [`up`](Self::up) of [`forever`], until so many runs of it have noted themselves.
    pub async fn up_forever(&self, runs: usize) -> WorkloadStatus {
        let status = self.up(&forever()).await;
        self.file("pids", |text| text.lines().count() == runs && text.ends_with('\n')).await;
        status
    }

    /// What a file of the workload holds, once it is there and satisfies.
    pub async fn file(&self, name: &str, enough: impl Fn(&str) -> bool) -> String {
        wait_until(&format!("the file {name}"), async || {
            fs::read_to_string(self.app().join(name)).ok().filter(|text| enough(text))
        })
        .await
    }

    /// Numbers of the processes that [`forever`] has noted, and how many of them live.
    pub fn noted(&self) -> (Vec<u32>, usize) {
        let text = fs::read_to_string(self.app().join("pids")).unwrap_or_default();
        let pids: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        let living = pids.iter().filter(|pid| is_alive(**pid)).count();
        (pids, living)
    }

    /// Processes of the workload, shims left out.
    pub fn processes(&self) -> Vec<u32> {
        Machine::processes_with(&format!("HYTHE_WORKLOAD={}", self.folder().display()))
    }

    pub async fn execute(&self, id: ExecutionId, request: &ExecRequest) -> Result<ResponseBody, AgentError> {
        let request = Request {
            method: Method::POST,
            path: path::execution(&self.id.to_string(), &id.to_string()),
            body: Body::Bytes(serde_json::to_vec(request).unwrap().into()),
            ..Request::default()
        };
        Ok(self.machine.client().send(request).await?.accepted().await?.body)
    }

    pub async fn attach(&self, id: ExecutionId, cursor: u64) -> Result<ResponseBody, AgentError> {
        let path = format!("{}?cursor={cursor}", path::execution(&self.id.to_string(), &id.to_string()));
        Ok(self.machine.client().send(Request { path, ..Request::default() }).await?.accepted().await?.body)
    }

    pub async fn logs(&self, query: &LogQuery) -> Lines {
        let request = Request { path: path::logs(&self.id.to_string(), query), ..Request::default() };
        let body = self.machine.client().send(request).await.unwrap().accepted().await.unwrap().body;
        Lines { body, buffer: Vec::new() }
    }
}

pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Output of an execution, put together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub exit: Option<Exit>,
}

/// Reads to the end.
pub async fn collect(mut body: ResponseBody) -> Output {
    let mut decoder = Decoder::default();
    let mut output = Output::default();
    while let Some(bytes) = body.next().await {
        decoder.push(&bytes.unwrap());
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Stdout(bytes) => output.stdout.push_str(&String::from_utf8(bytes).unwrap()),
                Frame::Stderr(bytes) => output.stderr.push_str(&String::from_utf8(bytes).unwrap()),
                Frame::Exit(exit) => assert!(output.exit.replace(exit).is_none(), "one end"),
            }
        }
    }
    output
}

/// Lines of a log as they come.
pub struct Lines {
    body: ResponseBody,
    buffer: Vec<u8>,
}

impl Lines {
    pub async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let more = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("a line comes");
            self.buffer.extend_from_slice(&more?.unwrap());
        }
    }

    /// The next line that the workload itself has printed.
    pub async fn next_printed(&mut self) -> Option<LogLine> {
        loop {
            let line = self.next().await?;
            if line.origin != "hythe" {
                return Some(line);
            }
        }
    }

    pub async fn all(mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

/// The refusal that was expected.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, AgentError>) -> (StatusCode, Problem) {
    match result {
        Err(AgentError::Refused { status, problem }) => (status, problem),
        other => panic!("not refused: {other:?}"),
    }
}
