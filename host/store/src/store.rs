//! The pool, its bounds, and what every query has in common: a name, a time-out, a measured time.

use std::future::Future;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tracing::Instrument as _;

use crate::error::StoreError;
use crate::secret::MasterKey;

/// The lowest version of Postgres that will do, as `server_version_num`.
const LOWEST_POSTGRES: i32 = 150_000;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// Gets the name and the time of each query, and whether it succeeded: for a histogram.
pub type QueryObserver = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// Bounds and habits of a [`Store`].
#[derive(Clone)]
pub struct StoreOptions {
    /// Connections at most; listeners have their own.
    pub max_connections: u32,
    /// How long a call waits for a connection.
    pub acquire_timeout: Duration,
    /// How long the server lets a statement run.
    pub statement_timeout: Duration,
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// How long the server lets a transaction wait for its client.
    pub idle_in_transaction_timeout: Duration,
    /// How long a call waits at all: a frozen server keeps none of the time-outs above.
    pub call_timeout: Duration,
    /// How long a replaced primary stays reachable at its own host.
    pub drain_grace: Duration,
    /// Checks in a row that a machine fails before it is `offline`.
    pub machine_failures: i32,
    /// What the server shows for our connections.
    pub application_name: String,
    pub on_query: Option<QueryObserver>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(15),
            drain_grace: Duration::from_secs(600),
            machine_failures: 3,
            application_name: "hythe".to_owned(),
            on_query: None,
        }
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("max_connections", &self.max_connections)
            .field("drain_grace", &self.drain_grace)
            .finish_non_exhaustive()
    }
}

/// The database, as the rest of the host knows it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) connect: PgConnectOptions,
    pub(crate) options: Arc<StoreOptions>,
    master_key: Option<MasterKey>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Store {
    /// Connects once, to see that it works, and keeps a pool from then on. Migrates nothing.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] where the URL is malformed or the server older than Postgres 15;
    /// [`StoreError::Unavailable`] where it does not answer.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis().max(1));
        let malformed = |reason: String| StoreError::Configuration {
            message: format!(
                "DATABASE_URL is not a Postgres URL (postgres://user:password@host:5432/database): {reason}"
            ),
        };
        // The driver takes any scheme for its own.
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(malformed("it does not begin with postgres://".to_owned()));
        }
        let connect = PgConnectOptions::from_str(url)
            .map_err(|error| malformed(error.to_string()))?
            .application_name(&options.application_name)
            .options([
                ("statement_timeout", milliseconds(options.statement_timeout)),
                ("lock_timeout", milliseconds(options.lock_timeout)),
                ("idle_in_transaction_session_timeout", milliseconds(options.idle_in_transaction_timeout)),
            ])
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .connect_lazy_with(connect.clone());
        let store = Self { pool, connect, options: Arc::new(options), master_key: None };
        let version = store
            .call("store_connect", async {
                Ok(sqlx::query_scalar!(
                    r#"SELECT current_setting('server_version_num')::integer AS "version!""#
                )
                .fetch_one(&store.pool)
                .await?)
            })
            .await?;
        if version < LOWEST_POSTGRES {
            return Err(StoreError::Configuration {
                message: format!(
                    "the database server is Postgres {}, but Hythe needs 15 or newer",
                    version / 10_000
                ),
            });
        }
        Ok(store)
    }

    /// The same store, able to encrypt and decrypt machines' keys.
    #[must_use]
    pub fn with_master_key(mut self, key: MasterKey) -> Self {
        self.master_key = Some(key);
        self
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn master_key(&self) -> Result<&MasterKey, StoreError> {
        self.master_key.as_ref().ok_or_else(|| StoreError::Configuration {
            message: "this host has no master key, so it can't read or write machines' keys".to_owned(),
        })
    }

    /// Brings the schema up to this program's version. Of several hosts that do so at once, one works and
    /// the others wait.
    ///
    /// # Errors
    /// [`StoreError::NewerDatabase`] where a newer program was here: nothing is written then.
    /// [`StoreError::Configuration`] where a migration that was applied has been changed since.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        const QUERY: &str = "store_migrate";
        let work = async {
            // A connection of its own: waiting for another host's migration may take long, and a failed
            // run leaves its lock to the session's end.
            let connect =
                self.connect.clone().options([("statement_timeout", "10min"), ("lock_timeout", "1min")]);
            let mut connection = connect.connect().await?;
            let result = migrate_with(&mut connection).await;
            connection.close().await.ok();
            result
        };
        work.await.map_err(|error: StoreError| error.named(QUERY))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call("store_ping", async {
            sqlx::query!("SELECT 1 AS one").fetch_one(&self.pool).await?;
            Ok(())
        })
        .await
    }

    /// Gives all connections back. Calls after it fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs one named query or transaction: bounded, traced, measured.
    pub(crate) async fn call<T>(
        &self,
        query: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let span = tracing::debug_span!("store", query, elapsed_us = tracing::field::Empty);
        let result =
            match tokio::time::timeout(self.options.call_timeout, work.instrument(span.clone())).await {
                Ok(result) => result.map_err(|error| error.named(query)),
                Err(_) => Err(StoreError::Unavailable { query, source: None }),
            };
        let elapsed = start.elapsed();
        span.record("elapsed_us", elapsed.as_micros() as u64);
        if let Some(observe) = &self.options.on_query {
            observe(query, elapsed, result.is_ok());
        }
        result
    }
}

async fn migrate_with(connection: &mut sqlx::PgConnection) -> Result<(), StoreError> {
    let binary = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0);
    let database = newest_migration(connection).await?;
    if database > binary {
        return Err(StoreError::NewerDatabase { database, binary });
    }
    use sqlx::migrate::MigrateError;
    // What `run` does with a connection in hand; the future of `run` is not Send for every lifetime.
    match MIGRATOR.run_direct(None, &mut *connection, false).await {
        Ok(()) => Ok(()),
        // A newer one was quicker.
        Err(MigrateError::VersionMissing(database)) => Err(StoreError::NewerDatabase { database, binary }),
        Err(MigrateError::VersionMismatch(version)) => Err(StoreError::Configuration {
            message: format!(
                "migration {version} was applied to this database in another form than this program has: it was \
                 made by another build; use that build, or another database"
            ),
        }),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Err(error.into()),
        Err(other) => {
            Err(StoreError::Configuration { message: format!("the database can't be migrated: {other}") })
        }
    }
}

/// The highest migration that the database has; 0: none.
async fn newest_migration(connection: &mut sqlx::PgConnection) -> Result<i64, StoreError> {
    // Not checked at compile time: the table belongs to the migrator, and may not be there yet.
    let missing: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NULL")
        .fetch_one(&mut *connection)
        .await?;
    if missing {
        return Ok(0);
    }
    Ok(sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?)
}
