//! Why there is no database: what, where, and what to do.

use std::path::{Path, PathBuf};

/// Why the embedded Postgres does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No binaries in any of the places.
    #[error(
        "there is no Postgres {lowest} or newer on this machine (looked in {}): install it (Debian: `apt install \
         postgresql`, macOS: `brew install postgresql@18`, or `./x up`, which unpacks one into {}), or set \
         DATABASE_URL to a server of yours",
        list(.looked), .cache.display()
    )]
    NoBinaries { lowest: u32, looked: Vec<PathBuf>, cache: PathBuf },
    /// The place that was set explicitly.
    #[error("{} does not hold a usable Postgres: {reason}. Set it to the folder that has `postgres` and `initdb`", .path.display())]
    BadBinaries { path: PathBuf, reason: String },
    /// The data directory needs another major version.
    #[error(
        "{} was made by Postgres {data}, but only {} found: install Postgres {data} again (Debian: `apt install \
         postgresql-{data}`), or with both versions installed move the data by pg_dump and psql into a new data \
         directory", .data_dir.display(), versions(.found)
    )]
    VersionMismatch { data_dir: PathBuf, data: u32, found: Vec<u32> },
    /// Another host has the data directory.
    #[error("{} is in use by another host, process {pid}: stop that one, or give this one another data directory", .data_dir.display())]
    InUse { data_dir: PathBuf, pid: String },
    #[error(
        "the database that was to be taken over does not run: try again when the host before this one has started it"
    )]
    NothingToTakeOver,
    /// Started as root, and there is nobody to drop to.
    #[error(
        "Postgres refuses to run as root, and this machine has neither a user `postgres` nor `nobody`: make one \
         (`useradd --system postgres`), start the host as another user, or set DATABASE_URL"
    )]
    NoUser,
    /// Postgres refuses users without a name.
    #[error(
        "user id {uid} has no entry in /etc/passwd, and Postgres refuses such users: add one, start the host as \
         another user, or set DATABASE_URL"
    )]
    NamelessUser { uid: u32 },
    /// The user that Postgres runs as can't get there.
    #[error(
        "the user `{user}`, as whom Postgres runs because the host is root, can't enter {} (mode {mode:04o}), which is \
         on the way to {}: choose a directory that it can reach, such as one in /var/lib, or `chmod o+x {}`",
        .blocked.display(), .path.display(), .blocked.display()
    )]
    Unreachable { user: String, path: PathBuf, blocked: PathBuf, mode: u32 },
    /// initdb failed.
    #[error("initdb could not make a cluster in {}: {output}", .data_dir.display())]
    Initdb { data_dir: PathBuf, output: String },
    /// The postmaster ended while it was waited for.
    #[error("Postgres did not start ({status}): {log}\nMore is in {}", .log_path.display())]
    DidNotStart { status: String, log: String, log_path: PathBuf },
    /// It runs, and does not answer.
    #[error(
        "Postgres (process {pid}) does not accept connections after {seconds} s: see {}; if it hangs, `kill -9 {pid}` \
         and start again", .log_path.display()
    )]
    NotReady {
        pid: u32,
        seconds: u64,
        log_path: PathBuf,
        #[source]
        source: Option<sqlx::Error>,
    },
    /// The password in the data directory is not the cluster's.
    #[error(
        "the password in {} is missing or not the one of the cluster beside it: bring the file back from a backup, \
         or move {} away to begin with an empty database", .path.display(), .cluster.display()
    )]
    Password { path: PathBuf, cluster: PathBuf },
    /// The folder for the socket belongs to somebody else.
    #[error("{} is not a folder of this host's alone: remove it, or use a data directory with a shorter path", .path.display())]
    SocketDirectory { path: PathBuf },
    /// It did not end, even when killed.
    #[error("Postgres (process {pid}) does not end, even when killed")]
    DidNotStop { pid: u32 },
    /// The database refused something while it was set up.
    #[error("the embedded database could not be set up")]
    Setup(#[source] sqlx::Error),
    /// A file or a process.
    #[error("can't {what} {}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "PATH".to_owned();
    }
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn versions(found: &[u32]) -> String {
    match found {
        [] => "none is".to_owned(),
        [one] => format!("{one} is"),
        many => format!("{} are", many.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    }
}
