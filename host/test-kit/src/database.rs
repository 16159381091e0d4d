//! A database for each test: migrated, empty, dropped afterwards.
//!
//! With `TEST_DATABASE_URL` (a role that may create databases, on Postgres ≥ 15), there; otherwise on one
//! cluster below `target/`, which the first test process starts and leaves running for the next, with all that
//! makes a database slow and durable switched off. [`stop_test_cluster`] ends it.
//!
//! The migrations are run once, into a template that is named by their hash; each test gets a copy of its
//! files.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use embedded_postgres::{Durability, EmbeddedPostgres, Options};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::OnceCell;

/// What every test's database is called, before a number of its own.
const PREFIX: &str = "hythe_test_";
/// What every template is called, before the hash of the migrations.
const TEMPLATE: &str = "hythe_template_";
/// Where a Postgres is that is not looked for: the host's own setting.
const BINARIES: &str = "HYTHE_POSTGRES_BIN";
/// The database that queries are checked against when `.sqlx` is renewed.
const PREPARE: &str = "hythe_prepare";

/// A database of one test's own. Dropped when this is.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    name: String,
    server: String,
}

impl TestDatabase {
    /// An empty database with today's schema.
    ///
    /// # Panics
    /// Where there is no Postgres, or it refuses; says why.
    pub async fn create() -> Self {
        let server = server().await;
        Self::make(server, Some(&server.template)).await
    }

    /// A database without a schema.
    ///
    /// # Panics
    /// As [`create`](Self::create).
    pub async fn create_without_schema() -> Self {
        Self::make(server().await, None).await
    }

    async fn make(server: &Server, template: Option<&str>) -> Self {
        let name = format!("{PREFIX}{}", uuid::Uuid::now_v7().simple());
        copy(&server.url, &name, template)
            .await
            .unwrap_or_else(|error| panic!("no database for this test: {error:#}"));
        Self { url: with_database(&server.url, &name), name, server: server.url.clone() }
    }

    /// How to connect to it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one statement past the store.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn execute(&self, sql: &str) {
        use sqlx::Executor as _;
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// A plain connection, to look at rows past the store.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url)
            .await
            .unwrap_or_else(|error| panic!("can't connect to the test's database: {error:#}"))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread of its own: the test's runtime may be ending.
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // What fails is dropped at the cluster's next start.
            let _ = done.send(runtime.map(|runtime| runtime.block_on(drop_database(&server, &name))));
        });
        // Not for ever: the server may itself wait for this thread, which drives a connection that is half made.
        let _ = wait.recv_timeout(Duration::from_secs(5));
    }
}

/// A migrated database to check queries against, made anew; its URL is for `DATABASE_URL` with
/// `SQLX_OFFLINE=false SQLX_OFFLINE_DIR=… cargo check -p store`.
///
/// # Errors
/// Where there is no Postgres, or a migration fails.
pub async fn prepare_database() -> Result<String> {
    let server = open_server().await?;
    drop_database(&server.url, PREPARE).await?;
    copy(&server.url, PREPARE, Some(&server.template)).await?;
    Ok(with_database(&server.url, PREPARE))
}

/// Ends the cluster below `target/`, where it runs. Not one of `TEST_DATABASE_URL`.
///
/// # Errors
/// Where it runs and does not end.
pub async fn stop_test_cluster() -> Result<()> {
    for data_dir in [below_target()?, below_tmp()?] {
        if data_dir.join("cluster/postmaster.pid").exists() {
            let _lock = lock(&data_dir).await?;
            // Adopts what runs.
            let cluster = EmbeddedPostgres::start(options(&data_dir)).await?;
            cluster.stop().await?;
        }
    }
    Ok(())
}

/// A server with a template.
struct Server {
    /// Of its own database, which is only for making others.
    url: String,
    template: String,
}

/// The server of this process's tests, found or started once.
async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(async || {
            open_server().await.unwrap_or_else(|error| panic!("there is no Postgres for tests: {error:#}"))
        })
        .await
}

async fn open_server() -> Result<Server> {
    let data_dir = below_target()?;
    if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        let _lock = lock(&data_dir).await?;
        let template =
            template(&url).await.context("TEST_DATABASE_URL is set, but that server will not do")?;
        return Ok(Server { url, template });
    }
    match open_cluster(&data_dir).await {
        // As root, the server's user may not get to a working copy in root's home.
        Err(error) if matches!(error.downcast_ref(), Some(embedded_postgres::Error::Unreachable { .. })) => {
            open_cluster(&below_tmp()?).await
        }
        result => result,
    }
}

/// The cluster in this folder, whether it runs already or not. Many processes come here at once.
async fn open_cluster(data_dir: &Path) -> Result<Server> {
    let _lock = lock(data_dir).await?;
    // Beside the folder: there it is the cluster's own user's to enter, here it is for whoever runs the tests.
    let url_file = data_dir.join("test-url");
    if let Ok(url) = std::fs::read_to_string(&url_file)
        && connect(&url).await.is_ok()
    {
        let template = template(&url).await?;
        return Ok(Server { url, template });
    }
    let cluster = match EmbeddedPostgres::start(options(data_dir)).await {
        // Made by a Postgres that is here no more: there is nothing in it to keep.
        Err(embedded_postgres::Error::VersionMismatch { .. }) => {
            std::fs::remove_dir_all(data_dir.join("cluster"))?;
            EmbeddedPostgres::start(options(data_dir)).await?
        }
        result => result?,
    };
    let url = cluster.url();
    write_private(&url_file, &url).with_context(|| format!("can't write {}", url_file.display()))?;
    if !cluster.was_adopted() {
        drop_leftovers(&url).await?;
    }
    let template = template(&url).await?;
    cluster.leave().await;
    Ok(Server { url, template })
}

/// The URL holds a password.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(part, path)
}

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        binaries: std::env::var_os(BINARIES).map(PathBuf::from),
        cache_dir: PathBuf::from("/var/cache/hythe"),
        durability: Durability::ForTests,
    }
}

fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn below_target() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Ok(target.join(format!("test-postgres{}", suffix()?)))
}

fn below_tmp() -> Result<PathBuf> {
    let hash = hex::encode(Sha256::digest(workspace().as_os_str().as_encoded_bytes()));
    Ok(PathBuf::from(format!("/tmp/hythe-test-postgres-{}{}", &hash[..12], suffix()?)))
}

/// Tests may be run with one Postgres after another: each has a cluster.
fn suffix() -> Result<String> {
    let Some(binaries) = std::env::var_os(BINARIES) else { return Ok(String::new()) };
    let binaries = Path::new(&binaries)
        .canonicalize()
        .with_context(|| format!("{BINARIES} is set to {}, which is not there", binaries.display()))?;
    let hash = hex::encode(Sha256::digest(binaries.as_os_str().as_encoded_bytes()));
    Ok(format!("-{}", &hash[..8]))
}

/// One process at a time looks, starts or stops. Held until it is dropped.
async fn lock(data_dir: &Path) -> Result<File> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("can't make {}", data_dir.display()))?;
    let path = data_dir.join("test-lock");
    let taken = tokio::task::spawn_blocking(move || -> Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    });
    taken.await.context("the lock's thread ended")?.context("can't lock the test cluster")
}

/// The name of the template with today's schema, made where it is not there. Only under the lock.
async fn template(server: &str) -> Result<String> {
    let directory = workspace().join("migrations");
    let name = format!("{TEMPLATE}{}", &hash_of(&directory)?[..16]);
    let mut connection = connect(server).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        // Made under another name: one that was cut short is no template.
        let part = format!("{name}_part");
        drop_database(server, &part).await?;
        run(&mut connection, format!("CREATE DATABASE {part}")).await?;
        let mut inside = connect(&with_database(server, &part)).await?;
        let migrator =
            sqlx::migrate::Migrator::new(directory).await.context("the migrations can't be read")?;
        migrator.run(&mut inside).await.context("a migration failed")?;
        inside.close().await?;
        run(&mut connection, format!("ALTER DATABASE {part} RENAME TO {name}")).await?;
    }
    connection.close().await?;
    Ok(name)
}

/// Of the migrations' names and texts.
fn hash_of(directory: &Path) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let mut files = std::fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?;
        files.sort();
        let mut hash = Sha256::new();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "sql")) {
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update([0]);
            hash.update(std::fs::read(file)?);
            hash.update([0]);
        }
        Ok(hex::encode(hash.finalize()))
    };
    read().with_context(|| format!("can't read the migrations in {}", directory.display()))
}

async fn copy(server: &str, name: &str, template: Option<&str>) -> Result<()> {
    let mut connection = connect(server).await?;
    let statement = match template {
        Some(template) => format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"),
        None => format!("CREATE DATABASE {name}"),
    };
    run(&mut connection, statement).await?;
    connection.close().await?;
    Ok(())
}

async fn drop_database(server: &str, name: &str) -> Result<()> {
    let mut connection = connect(server).await?;
    run(&mut connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    connection.close().await?;
    Ok(())
}

/// What test processes left that were killed, and templates of other schemas.
async fn drop_leftovers(server: &str) -> Result<()> {
    let mut connection = connect(server).await?;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT datname FROM pg_database WHERE starts_with(datname, $1) OR starts_with(datname, $2)",
    )
    .bind(PREFIX)
    .bind(TEMPLATE)
    .fetch_all(&mut connection)
    .await?;
    for name in names {
        run(&mut connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    }
    connection.close().await?;
    Ok(())
}

async fn connect(url: &str) -> Result<PgConnection> {
    Ok(PgConnectOptions::from_str(url)?.disable_statement_logging().connect().await?)
}

/// Names can't be bound; these are ours.
async fn run(connection: &mut PgConnection, statement: String) -> Result<()> {
    let what = statement.clone();
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.context(what)?;
    Ok(())
}

/// The same server, another database: `postgres://user@host:port/THIS?…`.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = match url.split_once('?') {
        Some((base, query)) => (base, format!("?{query}")),
        None => (url, String::new()),
    };
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    format!("{}/{name}{query}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        assert_eq!(with_database("postgres://u:p@h:1/a?host=/x/y", "b"), "postgres://u:p@h:1/b?host=/x/y");
        assert_eq!(with_database("postgres://h/a", "b"), "postgres://h/b");
        assert_eq!(with_database("postgres://h", "b"), "postgres://h/b");
    }

    #[tokio::test]
    async fn each_test_has_its_own_and_it_goes() {
        let (one, other) = tokio::join!(TestDatabase::create(), TestDatabase::create());
        let insert = "INSERT INTO projects (id, slug) VALUES (gen_random_uuid(), 'shop')";
        for database in [&one, &other] {
            sqlx::query(insert).execute(&mut database.connect().await).await.unwrap();
        }
        let url = one.url().to_owned();
        drop(one);
        assert!(connect(&url).await.is_err());
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM projects")
            .fetch_one(&mut other.connect().await)
            .await
            .unwrap();
        assert_eq!(count, 1);
    }
}
