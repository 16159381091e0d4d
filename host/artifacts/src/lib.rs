//! Uploaded archives (tar.zst) on disk, each under the SHA-256 of its bytes.
//!
//! Always holds: a file under its final name is whole, has that digest, was synced, and unpacks inside
//! its own folder ([`Limits`] bound what it unpacks to). What an upload left half-written is
//! gone when the upload ends, or at the next [`ArtifactStore::open`] where the host ended first.
//!
//! One host owns the folder: it holds the lock of the data directory that the folder is in.
//!
//! Deliberately absent: unpacking (the daemon does, under the workload's user), and rows about archives
//! (`store`).

mod archive;
mod digest;
mod put;
mod store;

pub use digest::{Digest, InvalidDigest};
pub use store::{ArtifactStore, Stored};

/// Bounds on one archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes as uploaded.
    pub archive_bytes: u64,
    /// Bytes that it unpacks to, holes of sparse files included.
    pub unpacked_bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for Limits {
    /// 512 MiB that unpack to 4 GiB in 250,000 entries: room for a project with its `node_modules`.
    fn default() -> Self {
        Self { archive_bytes: 512 << 20, unpacked_bytes: 4 << 30, entries: 250_000 }
    }
}

/// Why an archive was not stored or not found.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The bytes are not those that the digest names.
    #[error(
        "the uploaded bytes have the SHA-256 {actual}, not {expected}: the upload was changed or cut on its way; send it again"
    )]
    DigestMismatch { expected: Digest, actual: Digest },
    /// Not a tar.zst, or one that does not stay in its own folder. Says which entry and why.
    #[error("the archive is refused: {reason}")]
    InvalidArchive { reason: String },
    /// Past one of the [`Limits`].
    #[error("the archive {what}: the limit is {limit}")]
    TooLarge { what: &'static str, limit: u64 },
    /// No space left, or a quota is used up. Nothing of the upload stays.
    #[error("the disk that holds the host's data directory is full: free some space, then upload again")]
    DiskFull,
    /// The upload itself broke.
    #[error("the upload broke off after {received} bytes")]
    Body { received: u64, source: Box<dyn std::error::Error + Send + Sync> },
    /// No archive of that digest is stored here.
    #[error("no archive {digest} is stored: upload it first")]
    NotFound { digest: Digest },
    #[error("{doing} in the artifact folder failed")]
    Io { doing: &'static str, source: std::io::Error },
}

impl ArtifactError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { doing, source },
        }
    }
}
