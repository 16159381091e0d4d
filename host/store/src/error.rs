//! Why a call of the store failed, in the words of the domain.

use model::DeploymentId;

/// Why a call of the store failed. [`code`](Self::code) is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing, or no more.
    #[error("there is no {what}")]
    NotFound {
        /// Kind and name: `deployment dep_…`.
        what: String,
    },
    /// What is asked contradicts what is there. Trying again gives the same answer.
    #[error("{message}")]
    Conflict {
        /// Stable: `slug-taken`, `destroyed`, …
        code: &'static str,
        message: String,
    },
    /// Another holder took the deployment's lease: whatever this one still does is late. Nothing was written.
    #[error("the lease was taken by another host: what this one wanted to write is late and was dropped")]
    LeaseLost,
    /// What is wanted changed since it was read. Nothing was written.
    #[error("what is wanted of the deployment changed in the meantime: plan again")]
    Superseded,
    /// Nothing free that would do.
    #[error("{message}")]
    Exhausted { message: String },
    /// Another, newer version of Hythe has migrated the database. Nothing was written.
    #[error(
        "the database is at schema version {database}, newer than this program's {binary}: start a version of \
         Hythe at least as new as the one that last used it, or restore a backup from before"
    )]
    NewerDatabase {
        /// The highest migration that the database has.
        database: i64,
        /// The highest migration that this program knows.
        binary: i64,
    },
    /// The set-up is wrong: the URL, the server's version, the master key.
    #[error("{message}")]
    Configuration { message: String },
    /// The database can't be reached or is too slow at present: passing. What was asked may or may not
    /// have been done.
    #[error("the database does not answer at present ({query})")]
    Unavailable {
        query: &'static str,
        #[source]
        source: Option<Box<sqlx::Error>>,
    },
    /// The database refused, for a reason that the store did not expect.
    #[error("the database refused {query}")]
    Database {
        query: &'static str,
        #[source]
        source: Box<sqlx::Error>,
    },
    /// A row holds what this program can't read.
    #[error("the database holds a value that this program can't read ({query}): {message}")]
    Unreadable { query: &'static str, message: String },
}

impl StoreError {
    /// The stable code, for problems of the API and for logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::Conflict { code, .. } => code,
            Self::LeaseLost => "lease-lost",
            Self::Superseded => "superseded",
            Self::Exhausted { .. } => "exhausted",
            Self::NewerDatabase { .. } => "newer-database",
            Self::Configuration { .. } => "configuration",
            Self::Unavailable { .. } => "database-unavailable",
            Self::Database { .. } | Self::Unreadable { .. } => "internal",
        }
    }

    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Exhausted { .. })
    }

    /// Whether the text may be shown to a client of the API. Otherwise only [`code`](Self::code).
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Conflict { .. }
                | Self::Exhausted { .. }
                | Self::Superseded
                | Self::LeaseLost
        )
    }

    pub(crate) fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::NotFound { what: format!("{kind} {name}") }
    }

    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { code, message: message.into() }
    }

    pub(crate) fn destroyed(id: DeploymentId) -> Self {
        Self::conflict(
            "destroyed",
            format!("{id} is destroyed or about to be, which can't be undone: make a new deployment"),
        )
    }

    /// A row's value that `model` does not know.
    pub(crate) fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::Unreadable { query: UNNAMED, message: error.to_string() }
    }

    /// Says which query it was, where the error does not yet.
    pub(crate) fn named(mut self, name: &'static str) -> Self {
        match &mut self {
            Self::Unavailable { query, .. }
            | Self::Database { query, .. }
            | Self::Unreadable { query, .. }
                if *query == UNNAMED =>
            {
                *query = name;
            }
            _ => {}
        }
        self
    }

    /// Whether the database refused by this constraint.
    pub(crate) fn violates(&self, constraint: &str) -> bool {
        matches!(self, Self::Database { source, .. }
            if source.as_database_error().and_then(|error| error.constraint()) == Some(constraint))
    }
}

const UNNAMED: &str = "";

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        let query = UNNAMED;
        if is_passing(&source) {
            Self::Unavailable { query, source: Some(Box::new(source)) }
        } else if matches!(source, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            Self::unreadable(source)
        } else {
            Self::Database { query, source: Box::new(source) }
        }
    }
}

/// Whether the connection, the server's state or a time-out is to blame, not the query.
/// SQLSTATEs: PostgreSQL's manual, appendix A.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // A message cut short by a dying server.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection; out of resources; operator's intervention (shutdown, statement time-out);
            // deadlock and serialization; lock time-out; idle-in-transaction time-out.
            code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57")
                || matches!(&*code, "40001" | "40P01" | "55P03" | "25P03")
        }),
        _ => false,
    }
}
