//! The server: started or adopted, watched, started again, stopped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::binaries::{self, Binaries};
use crate::cluster::{self, DataDir, ROLE};
use crate::error::Error;
use crate::postmaster::{self, PidFile};

/// How long a start may take. Recovery after a crash took 2.7 s on a small machine with little to recover.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one attempt to connect may take: a frozen server accepts and says nothing.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(25);
/// How long a fast shutdown may take before it is made an immediate one.
const FAST_LIMIT: Duration = Duration::from_secs(30);
/// How long an immediate one may take before the process is killed.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(5);
/// How often an adopted postmaster, who is not our child, is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Longest pause between starts of a server that keeps dying.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How to run it.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder of the server's alone. Made where there is none; everything of it lies in there.
    pub data_dir: PathBuf,
    /// The folder with `postgres` and `initdb`; none: looked for.
    pub binaries: Option<PathBuf>,
    /// Where a runtime may have been unpacked, as `postgres-<version>/bin`.
    pub cache_dir: PathBuf,
    pub durability: Durability,
}

/// What a crash of the machine may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Durable,
    /// Everything: no fsync, no vacuum; and no password beyond the socket's folder. For tests.
    ForTests,
}

/// A Postgres that runs for this host. While it is held it is watched, and started again where it dies.
///
/// Dropping it asks the server to end (fast shutdown) and does not wait; [`stop`](Self::stop) waits;
/// [`leave`](Self::leave) lets it run on, to be adopted by the next start.
pub struct EmbeddedPostgres {
    url: String,
    adopted: bool,
    uid: Option<u32>,
    log: PathBuf,
    pid: watch::Receiver<Option<u32>>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What the watching task is told.
enum Order {
    Share(oneshot::Sender<std::io::Result<File>>),
    Own(oneshot::Sender<Result<(), Error>>),
    Stop(oneshot::Sender<Result<(), Error>>),
    Leave(oneshot::Sender<()>),
}

impl EmbeddedPostgres {
    /// Makes the cluster where there is none, adopts the server that an earlier host left running or starts
    /// one, and returns when it accepts connections.
    ///
    /// # Errors
    /// See [`Error`]; each says what to do. Nothing of this start is left running then.
    pub async fn start(options: Options) -> Result<Self, Error> {
        Self::begin(options, None).await
    }

    /// Joins another process of this host that has the server and hands it over, with its
    /// [`share_lock`](Self::share_lock). The server stays the other's until [`own`](Self::own): till then it is not started
    /// again here, and dropping this does nothing to it.
    ///
    /// # Errors
    /// See [`Error`]. The server runs on.
    pub async fn take_over(options: Options, lock: File) -> Result<Self, Error> {
        Self::begin(options, Some(lock)).await
    }

    async fn begin(options: Options, handed_over: Option<File>) -> Result<Self, Error> {
        let armed = handed_over.is_none();
        let settings = tokio::task::spawn_blocking(move || Settings::prepare(&options, handed_over))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let mut server = Server { settings, running: None, armed };
        let adopted = server.run().await?;
        let (pid_sender, pid) = watch::channel(server.pid());
        let (orders, inbox) = mpsc::unbounded_channel();
        let Settings { data, .. } = &server.settings;
        let started = Self {
            url: server.settings.url(),
            adopted,
            uid: data.user.as_ref().map(|user| user.uid),
            log: data.log(),
            pid,
            orders,
        };
        tokio::spawn(watch_over(server, pid_sender, inbox));
        Ok(started)
    }

    /// How to connect: over the unix socket, as the owner of the database `hythe`. Holds the password: not for
    /// logs. The same for the cluster's whole life.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The postmaster's process; none while it is being started again.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Waits until the postmaster is another process than `pid`, and accepts connections.
    pub async fn restarted(&self, pid: u32) -> Option<u32> {
        let mut watching = self.pid.clone();
        watching.wait_for(|now| now.is_some_and(|now| now != pid)).await.ok().and_then(|now| *now)
    }

    /// Whether the server was found running.
    #[must_use]
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

    /// The user id that the server runs as, where that is not the host's own. Nothing that is not trusted may
    /// run as this user.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// What the server prints.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Ends the server: fast (sessions are ended, what was committed is on disk), and harder where that takes over
    /// half a minute. Returns when it has ended; again is success.
    ///
    /// # Errors
    /// [`Error::DidNotStop`]
    pub async fn stop(&self) -> Result<(), Error> {
        let (answer, result) = oneshot::channel();
        if self.orders.send(Order::Stop(answer)).is_err() {
            return Ok(());
        }
        result.await.unwrap_or(Ok(()))
    }

    /// The lock on the data directory, for the process that takes over. Held until both have dropped it.
    ///
    /// # Errors
    /// While the server is being started again (`WouldBlock`) or has been stopped (`BrokenPipe`), or where the process
    /// has no descriptor left.
    pub async fn share_lock(&self) -> std::io::Result<File> {
        let (answer, result) = oneshot::channel();
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.orders.send(Order::Share(answer)).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    /// Makes the server this process's own after [`take_over`](Self::take_over), just before the other process
    /// [leaves](Self::leave) it.
    ///
    /// # Errors
    /// Where the lock can't be written.
    pub async fn own(&self) -> Result<(), Error> {
        let (answer, result) = oneshot::channel();
        if self.orders.send(Order::Own(answer)).is_err() {
            return Ok(());
        }
        result.await.unwrap_or(Ok(()))
    }

    /// Lets the server run on when this host ends, and gives up the lock.
    pub async fn leave(self) {
        let (answer, done) = oneshot::channel();
        if self.orders.send(Order::Leave(answer)).is_ok() {
            let _ = done.await;
        }
    }
}

impl std::fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedPostgres").field("log", &self.log).field("pid", &self.pid()).finish()
    }
}

/// All that starting needs, found out once.
struct Settings {
    data: DataDir,
    cluster: PathBuf,
    binaries: Binaries,
    socket_dir: PathBuf,
    password: String,
    durability: Durability,
}

/// A server that accepts connections.
struct Running {
    pid: u32,
    /// None: adopted.
    child: Option<Child>,
}

impl Settings {
    /// Blocking: locks, looks, runs initdb.
    fn prepare(options: &Options, handed_over: Option<File>) -> Result<Self, Error> {
        let data = DataDir::lock(&options.data_dir, handed_over)?;
        let places = binaries::places(std::env::var_os("PATH").as_deref(), &options.cache_dir);
        let binaries = binaries::find(
            options.binaries.as_deref(),
            data.version()?,
            &data.cluster(),
            &places,
            &options.cache_dir,
        )?;
        if let Some(user) = &data.user {
            crate::user::check_reachable(user, &binaries.postgres())?;
        }
        let password = data.password()?;
        data.ensure_cluster(&binaries, &password, options.durability == Durability::Durable)?;
        let socket_dir = data.socket_dir()?;
        let cluster = data.cluster();
        Ok(Self { data, cluster, binaries, socket_dir, password, durability: options.durability })
    }

    fn url(&self) -> String {
        format!("postgres://{ROLE}:{}@localhost:5432/{ROLE}?host={}", self.password, encode(&self.socket_dir))
    }

    fn connect_options(&self, socket_dir: &Path, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(socket_dir)
            .port(5432)
            .username(ROLE)
            .password(&self.password)
            .database(database)
            .disable_statement_logging()
    }

    fn spawn(&self) -> Result<Running, Error> {
        let log = self.data.open_log()?;
        let error_log = log.try_clone().map_err(Error::io("open", &self.data.log()))?;
        let mut command = std::process::Command::new(self.binaries.postgres());
        command.arg("-D").arg(&self.cluster);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "");
        set("unix_socket_directories", &quoted(&self.socket_dir));
        set("unix_socket_permissions", "0700");
        set("port", "5432");
        set("max_connections", if self.durability == Durability::ForTests { "300" } else { "100" });
        set("shared_buffers", "32MB");
        set("logging_collector", "off");
        set("log_destination", "stderr");
        set("log_line_prefix", "%m [%p] ");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        set("jit", "off");
        if self.durability == Durability::ForTests {
            for name in ["fsync", "synchronous_commit", "full_page_writes", "autovacuum"] {
                set(name, "off");
            }
        } else {
            for name in ["fsync", "synchronous_commit", "full_page_writes"] {
                set(name, "on");
            }
        }
        cluster::prepare(&mut command, self.data.user.as_ref());
        let mut command = Command::from(command);
        // A group of its own: Ctrl-C reaches the host, which then ends the server in order.
        command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            .kill_on_drop(false);
        let child = command.spawn().map_err(Error::io("run", &self.binaries.postgres()))?;
        let Some(pid) = child.id() else {
            return Err(Error::io("run", &self.binaries.postgres())(std::io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Running { pid, child: Some(child) })
    }

    /// `ready` in the pid file is not enough: a server in recovery or shutting down says 57P03
    /// (`cannot_connect_now`) to those who connect.
    async fn wait_until_ready(&self, running: &mut Running, deadline: Instant) -> Result<Ready, Error> {
        loop {
            if let Some(status) = running.ended(&self.cluster) {
                return Ok(Ready::Ended(status));
            }
            // An adopted one may have been started by a host that saw another path.
            let socket_dir = PidFile::read(&self.cluster)
                .filter(|file| file.pid == running.pid)
                .and_then(|file| file.socket_dir)
                .unwrap_or_else(|| self.socket_dir.clone());
            let options = self.connect_options(&socket_dir, "postgres");
            let connecting = PgConnection::connect_with(&options);
            let source = match tokio::time::timeout(CONNECT_LIMIT, Box::pin(connecting)).await {
                Ok(Ok(connection)) => return Ok(Ready::Yes(connection)),
                Ok(Err(error)) if code(&error).is_some_and(|code| code.starts_with("28")) => {
                    return Err(Error::Password {
                        path: self.data.password_file(),
                        cluster: self.cluster.clone(),
                    });
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            if Instant::now() > deadline {
                return Err(Error::NotReady {
                    pid: running.pid,
                    seconds: START_LIMIT.as_secs(),
                    log_path: self.data.log(),
                    source,
                });
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes the database where there is none. False: an adopted server is not run as it should be.
    async fn settle(&self, mut connection: PgConnection, adopted: bool) -> Result<bool, Error> {
        if adopted {
            let fsync: String = sqlx::query_scalar("SELECT current_setting('fsync')")
                .fetch_one(&mut connection)
                .await
                .map_err(Error::Setup)?;
            let sockets: String = sqlx::query_scalar("SELECT current_setting('unix_socket_directories')")
                .fetch_one(&mut connection)
                .await
                .map_err(Error::Setup)?;
            let wanted = if self.durability == Durability::Durable { "on" } else { "off" };
            if fsync != wanted || sockets.trim_matches('"') != self.socket_dir.to_string_lossy() {
                tracing::warn!("the database that was found running has other settings: it is started again");
                return Ok(false);
            }
        }
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(ROLE)
            .fetch_one(&mut connection)
            .await
            .map_err(Error::Setup)?;
        if !exists {
            // ROLE is a plain identifier.
            let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {ROLE}"));
            sqlx::query(statement).execute(&mut connection).await.map_err(Error::Setup)?;
        }
        // The server is asked for nothing more.
        let _ = connection.close().await;
        Ok(true)
    }

    fn log_length(&self) -> u64 {
        std::fs::metadata(self.data.log()).map_or(0, |data| data.len())
    }

    fn log_since(&self, start: u64) -> String {
        let text = std::fs::read(self.data.log()).unwrap_or_default();
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[start..]).into_owned()
    }
}

enum Ready {
    Yes(PgConnection),
    /// With this status.
    Ended(String),
}

impl Running {
    /// How it ended, where it has.
    fn ended(&mut self, cluster: &Path) -> Option<String> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => (!postmaster::is_ours(self.pid, cluster)).then(|| "it ended".to_owned()),
        }
    }

    /// Returns when it has ended.
    async fn wait(&mut self, cluster: &Path) -> String {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            None => loop {
                if let Some(status) = self.ended(cluster) {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            },
        }
    }
}

/// A server, running or not, and the lock on its data. Where it is dropped, by whatever way, the server is asked to
/// end.
struct Server {
    settings: Settings,
    running: Option<Running>,
    armed: bool,
}

impl Server {
    fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Brings a server to where it accepts connections; says whether it was found running.
    async fn run(&mut self) -> Result<bool, Error> {
        let deadline = Instant::now() + START_LIMIT;
        let result = self.run_until(deadline).await;
        if result.is_err() {
            // What this start began ends with it; what was adopted is left as it was found.
            let adopted = self.running.as_ref().is_some_and(|running| running.child.is_none());
            if adopted {
                self.running = None;
            } else if let Err(error) = self.stop().await {
                tracing::error!(%error, "a database that did not start runs on");
            }
        }
        result
    }

    async fn run_until(&mut self, deadline: Instant) -> Result<bool, Error> {
        loop {
            let settings = &self.settings;
            let log_start = settings.log_length();
            let left = PidFile::read(&settings.cluster)
                .filter(|file| postmaster::is_ours(file.pid, &settings.cluster));
            let adopted = left.is_some();
            let running = match left {
                Some(file) => {
                    tracing::info!(pid = file.pid, "found the database of an earlier host running");
                    Running { pid: file.pid, child: None }
                }
                None if !self.armed => return Err(Error::NothingToTakeOver),
                None => {
                    if postmaster::path(&settings.cluster).exists() {
                        postmaster::clear_stale(&settings.cluster, &settings.socket_dir);
                    }
                    settings.spawn()?
                }
            };
            let running = self.running.insert(running);
            match settings.wait_until_ready(running, deadline).await? {
                Ready::Yes(connection) => {
                    // What is another's is not started again for its settings.
                    if settings.settle(connection, adopted).await? || !self.armed {
                        return Ok(adopted);
                    }
                    // Adopted, with other settings than ours.
                    self.stop().await?;
                }
                // The earlier host had asked it to end.
                Ready::Ended(_) if adopted => {}
                // The killed postmaster's other processes have not all noticed yet.
                Ready::Ended(_)
                    if settings.log_since(log_start).contains("is still in use")
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(RETRY * 4).await;
                }
                Ready::Ended(status) => {
                    let log = tail(&settings.log_since(log_start));
                    return Err(Error::DidNotStart { status, log, log_path: settings.data.log() });
                }
            }
        }
    }

    /// Returns when it has ended, and how.
    async fn wait(&mut self) -> String {
        match &mut self.running {
            Some(running) => running.wait(&self.settings.cluster).await,
            None => "it does not run".to_owned(),
        }
    }

    /// The shutdown modes' signals: PostgreSQL's manual, section "Shutting Down the Server".
    async fn stop(&mut self) -> Result<(), Error> {
        let cluster = &self.settings.cluster;
        let Some(running) = &mut self.running else { return Ok(()) };
        for (signal, limit) in
            [(Signal::INT, FAST_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT), (Signal::KILL, IMMEDIATE_LIMIT)]
        {
            if running.ended(cluster).is_none() {
                postmaster::signal(running.pid, signal);
            }
            let ended = async {
                while running.ended(cluster).is_none() {
                    tokio::time::sleep(RETRY).await;
                }
            };
            if tokio::time::timeout(limit, ended).await.is_ok() {
                self.running = None;
                return Ok(());
            }
            tracing::warn!(pid = running.pid, ?signal, "the database did not end in time");
        }
        Err(Error::DidNotStop { pid: running.pid })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.armed
            && let Some(running) = &mut self.running
            && running.ended(&self.settings.cluster).is_none()
        {
            postmaster::signal(running.pid, Signal::INT);
        }
    }
}

/// Starts the server again whenever it dies, until told otherwise.
async fn watch_over(
    mut server: Server,
    pid: watch::Sender<Option<u32>>,
    mut inbox: mpsc::UnboundedReceiver<Order>,
) {
    let order = loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(Order::Share(answer)) => {
                    let _ = answer.send(server.settings.data.share_lock());
                    continue;
                }
                Some(Order::Own(answer)) => {
                    server.armed = true;
                    let _ = answer.send(server.settings.data.claim());
                    continue;
                }
                order => break order,
            },
            status = server.wait(), if server.armed => {
                tracing::error!(pid = server.pid(), %status, "the database ended by itself: starting it again");
                server.running = None;
            }
        }
        pid.send_replace(None);
        let order = {
            let starting = std::pin::pin!(run_at_last(&mut server));
            await_start(starting, &mut inbox).await
        };
        match order {
            Some(order) => break order,
            None => {
                tracing::info!(pid = server.pid(), "the database runs again");
                pid.send_replace(server.pid());
            }
        }
    };
    pid.send_replace(None);
    // Nobody may wait for an answer any more.
    match order {
        Some(Order::Stop(answer)) => {
            let result = server.stop().await;
            server.armed = false;
            drop(server);
            let _ = answer.send(result);
        }
        Some(Order::Leave(answer)) => {
            server.armed = false;
            drop(server);
            let _ = answer.send(());
        }
        // Dropped: asked to end, not waited for.
        Some(Order::Share(_) | Order::Own(_)) | None => {}
    }
}

/// Returns when it has started (`None`), or with the order to end it.
async fn await_start(
    mut starting: std::pin::Pin<&mut impl Future<Output = ()>>,
    inbox: &mut mpsc::UnboundedReceiver<Order>,
) -> Option<Option<Order>> {
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(Order::Share(answer)) => {
                    let _ = answer.send(Err(std::io::ErrorKind::WouldBlock.into()));
                }
                // Only what is owned is started again.
                Some(Order::Own(answer)) => drop(answer.send(Ok(()))),
                order => return Some(order),
            },
            () = &mut starting => return None,
        }
    }
}

async fn run_at_last(server: &mut Server) {
    let mut pause = RETRY;
    while let Err(error) = server.run().await {
        tracing::error!(error = &error as &dyn std::error::Error, "the database does not start");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// The end of a log, for a message.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// As a part of a query (RFC 3986, section 2.1).
fn encode(path: &Path) -> String {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' | b'~' => {
                char::from(*byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// As an item of a list setting: a comma or a blank would part it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('"', "\"\""))
}
