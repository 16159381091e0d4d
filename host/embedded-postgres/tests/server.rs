//! The manager against real processes, killed in the ways that happen.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;

use embedded_postgres::{Durability, EmbeddedPostgres, Error, Options};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

/// A folder that an unprivileged server's user can get to.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("hythe-pg").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        binaries: std::env::var_os("HYTHE_POSTGRES_BIN").map(PathBuf::from),
        cache_dir: PathBuf::from("/var/cache/hythe"),
        // Crash tests run with fsync on.
        durability: Durability::Durable,
    }
}

async fn start(data_dir: &Path) -> EmbeddedPostgres {
    EmbeddedPostgres::start(options(data_dir)).await.unwrap()
}

/// Whether a client tries again: the server has just gone, or recovers (57P01 to 57P03).
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P0")),
        _ => false,
    }
}

async fn connect(url: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(url).unwrap();
    loop {
        match PgConnection::connect_with(&options).await {
            Ok(connection) => return connection,
            Err(error) => assert!(is_passing(&error), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn put(url: &str, value: i32) {
    let mut connection = connect(url).await;
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (value integer)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(value).execute(&mut connection).await.unwrap();
}

async fn kept(url: &str) -> Vec<i32> {
    loop {
        // Connected is not safe: a server that has not yet noticed its backend's death ends all of them next.
        let query = sqlx::query_scalar("SELECT value FROM kept ORDER BY value");
        match query.fetch_all(&mut connect(url).await).await {
            Ok(rows) => return rows,
            Err(error) => assert!(is_passing(&error), "{error}"),
        }
    }
}

fn alive(pid: u32) -> bool {
    // A zombie is none.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Another process that starts the server and holds it: this test binary again, running `host_process`.
struct Host {
    child: Child,
    postmaster: u32,
}

impl Host {
    fn spawn(data_dir: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "host_process", "--nocapture"])
            .env("HYTHE_TEST_DATA_DIR", data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn start(data_dir: &Path) -> Self {
        let mut child = Self::spawn(data_dir);
        let output = BufReader::new(child.stdout.take().unwrap());
        let postmaster = output
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("postmaster ").map(|pid| pid.parse().unwrap()))
            .expect("the host process did not start");
        Self { child, postmaster }
    }

    fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "not a test: the process that others kill"]
fn host_process() {
    let data_dir = PathBuf::from(std::env::var_os("HYTHE_TEST_DATA_DIR").unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(start(&data_dir));
    // A line of its own, whatever the harness has printed before.
    println!("\npostmaster {}", server.pid().unwrap());
    // Ends with its parent.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    runtime.block_on(server.stop()).unwrap();
}

#[tokio::test]
async fn rows_outlive_a_stop_and_nothing_runs_on() {
    let folder = folder();
    let server = start(folder.path()).await;
    let (url, pid) = (server.url(), server.pid().unwrap());
    put(&url, 1).await;
    server.stop().await.unwrap();
    assert!(!alive(pid));
    server.stop().await.unwrap();

    let again = start(folder.path()).await;
    assert_eq!(again.url(), url);
    assert!(!again.was_adopted());
    assert_eq!(kept(&url).await, [1]);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_hosts_server_is_adopted() {
    let folder = folder();
    let host = Host::start(folder.path());
    let postmaster = host.postmaster;
    host.kill_9();
    assert!(alive(postmaster));

    let server = start(folder.path()).await;
    assert!(server.was_adopted());
    assert_eq!(server.pid(), Some(postmaster));
    put(&server.url(), 1).await;
    server.stop().await.unwrap();
    assert!(!alive(postmaster));
}

#[tokio::test]
async fn an_adopted_server_that_dies_is_started_again() {
    let folder = folder();
    let host = Host::start(folder.path());
    let postmaster = host.postmaster;
    host.kill_9();
    let server = start(folder.path()).await;
    put(&server.url(), 1).await;
    kill_9(postmaster);
    assert_ne!(server.restarted(postmaster).await.unwrap(), postmaster);
    assert_eq!(kept(&server.url()).await, [1]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_host_is_refused_with_the_firsts_pid() {
    let folder = folder();
    let host = Host::start(folder.path());
    let error = EmbeddedPostgres::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(&error, Error::InUse { pid, .. } if *pid == host.child.id().to_string()), "{error}");
    assert!(error.to_string().contains("another data directory"), "{error}");
    assert!(alive(host.postmaster));
    host.kill_9();
    start(folder.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postmaster_is_started_again_with_every_row() {
    let folder = folder();
    let server = start(folder.path()).await;
    let url = server.url();
    let mut before = server.pid().unwrap();
    for value in 1..=2 {
        put(&url, value).await;
        // Its backends live a moment longer than it.
        let _open = connect(&url).await;
        kill_9(before);
        before = server.restarted(before).await.unwrap();
        assert_eq!(kept(&url).await, (1..=value).collect::<Vec<_>>());
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_backend_puts_all_through_recovery_and_back() {
    let folder = folder();
    let server = start(folder.path()).await;
    let (url, pid) = (server.url(), server.pid());
    put(&url, 1).await;
    let mut victim = connect(&url).await;
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut victim).await.unwrap();
    kill_9(backend.cast_unsigned());
    assert!(sqlx::query("SELECT 1").execute(&mut victim).await.is_err());
    assert_eq!(kept(&url).await, [1]);
    assert_eq!(server.pid(), pid);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_whose_number_is_anothers_is_cleared_away() {
    let folder = folder();
    let server = start(folder.path()).await;
    put(&server.url(), 1).await;
    server.stop().await.unwrap();
    let (cluster, socket) = (folder.path().join("cluster"), folder.path().join("socket"));
    // This test's own number: it lives, and is no postmaster.
    let me = std::process::id();
    let stale =
        format!("{me}\n{}\n1700000000\n5432\n{}\n\n  1 2\nready   \n", cluster.display(), socket.display());
    std::fs::write(cluster.join("postmaster.pid"), stale).unwrap();
    std::fs::write(socket.join(".s.PGSQL.5432.lock"), format!("{me}\n")).unwrap();

    let server = start(folder.path()).await;
    assert_eq!(kept(&server.url()).await, [1]);
    assert_ne!(server.pid(), Some(me));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_cut_short_is_cleared_away() {
    let folder = folder();
    start(folder.path()).await.stop().await.unwrap();
    std::fs::write(folder.path().join("cluster/postmaster.pid"), "").unwrap();
    start(folder.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_host_killed_while_it_makes_the_cluster_leaves_nothing_that_looks_like_one() {
    let folder = folder();
    let mut host = Host::spawn(folder.path());
    let part = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.flatten().any(|entry| {
            entry.path().join("global").exists() && entry.path() != folder.path().join("cluster")
        })
    };
    while !part() {
        std::thread::yield_now();
    }
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(!folder.path().join("cluster").exists());

    let server = start(folder.path()).await;
    put(&server.url(), 1).await;
    server.stop().await.unwrap();
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("part")), "{names:?}");
}

#[tokio::test]
async fn data_of_another_version_is_refused_with_what_to_do() {
    let folder = folder();
    let cluster = folder.path().join("cluster");
    std::fs::create_dir(&cluster).unwrap();
    std::fs::write(cluster.join("PG_VERSION"), "99\n").unwrap();
    let error = EmbeddedPostgres::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { data: 99, .. }), "{error}");
    assert!(error.to_string().contains("apt install postgresql-99"), "{error}");
    assert_eq!(std::fs::read_to_string(cluster.join("PG_VERSION")).unwrap(), "99\n");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_no_hindrance() {
    let folder = folder();
    let data_dir = folder.path().join("x".repeat(100));
    let server = start(&data_dir).await;
    put(&server.url(), 1).await;
    assert!(!data_dir.join("socket").exists());
    server.stop().await.unwrap();
    let again = start(&data_dir).await;
    assert_eq!(kept(&again.url()).await, [1]);
    let url = again.url();
    let socket_dir = url.split_once("host=").unwrap().1;
    again.stop().await.unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_password_that_was_lost_is_said_to_be() {
    let folder = folder();
    start(folder.path()).await.stop().await.unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong").unwrap();
    let error = EmbeddedPostgres::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::Password { .. }), "{error}");
    assert!(!folder.path().join("cluster/postmaster.pid").exists(), "the server was left running");
    std::fs::remove_file(&password).unwrap();
    let error = EmbeddedPostgres::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::Password { .. }), "{error}");
}

#[tokio::test]
async fn dropping_it_ends_the_server_without_waiting() {
    let folder = folder();
    let server = start(folder.path()).await;
    let pid = server.pid().unwrap();
    drop(server);
    // The next start waits for the end of the old one by itself.
    let again = start(folder.path()).await;
    assert_ne!(again.pid(), Some(pid));
    assert!(!alive(pid));
    again.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_left_running_is_adopted() {
    let folder = folder();
    let server = start(folder.path()).await;
    let pid = server.pid();
    server.leave().await;
    let again = start(folder.path()).await;
    assert!(again.was_adopted());
    assert_eq!(again.pid(), pid);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_for_tests_does_not_pass_for_a_durable_one() {
    let folder = folder();
    let server =
        EmbeddedPostgres::start(Options { durability: Durability::ForTests, ..options(folder.path()) })
            .await
            .unwrap();
    server.leave().await;
    let durable = start(folder.path()).await;
    let fsync: String =
        sqlx::query_scalar("SHOW fsync").fetch_one(&mut connect(&durable.url()).await).await.unwrap();
    assert_eq!(fsync, "on");
    durable.stop().await.unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn a_workloads_user_reaches_neither_socket_nor_password_nor_data() {
    if !is_root() {
        return;
    }
    let folder = folder();
    let server = start(folder.path()).await;
    assert_ne!(server.uid(), Some(0));
    let stranger = |path: PathBuf| {
        // 4,000,000: nobody's.
        Command::new("ls")
            .arg(path)
            .uid(4_000_000)
            .gid(4_000_000)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(stranger(PathBuf::from("/tmp")));
    for path in ["socket", "socket/.s.PGSQL.5432", "cluster"] {
        assert!(!stranger(folder.path().join(path)), "{path}");
    }
    for path in ["password", "postgres.log", "lock"] {
        let mode = std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    // Whoever gets to the socket all the same lacks the password.
    let wrong = server.url().replacen("hythe:", "hythe:not", 1);
    let error = PgConnection::connect(&wrong).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("28P01"), "{error}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_enter_is_named() {
    if !is_root() {
        return;
    }
    let folder = folder();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let error = EmbeddedPostgres::start(options(&closed.join("data"))).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { blocked, .. } if *blocked == closed), "{error}");
}
