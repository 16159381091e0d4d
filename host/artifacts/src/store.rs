//! The folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use crate::{ArtifactError, Digest, Limits, put};

/// Where uploads are written before they get their final name; on the same file system.
const INCOMING: &str = "incoming";

/// Archives under their digests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) limits: Limits,
}

/// What a [`put`](ArtifactStore::put) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of the archive.
    pub size: u64,
    /// False where it was stored already.
    pub created: bool,
}

impl ArtifactStore {
    /// Opens the folder under the default [`Limits`]; makes it where it is missing.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] or [`ArtifactError::DiskFull`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ArtifactError> {
        Self::open_with(dir, Limits::default())
    }

    /// Opens the folder; makes it where it is missing, and removes what uploads that their host did not
    /// survive have left.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] or [`ArtifactError::DiskFull`].
    pub fn open_with(dir: impl Into<PathBuf>, limits: Limits) -> Result<Self, ArtifactError> {
        let dir = dir.into();
        let incoming = dir.join(INCOMING);
        if incoming.exists() {
            std::fs::remove_dir_all(&incoming).map_err(ArtifactError::io("removing unfinished uploads"))?;
        }
        std::fs::create_dir_all(&incoming).map_err(ArtifactError::io("making a folder"))?;
        Ok(Self { shared: Arc::new(Shared { dir, limits }) })
    }

    /// Stores an archive whose bytes have this digest. The stream is read to its end even where the
    /// archive is stored already, so that a client is never cut in the middle of its upload. Dropping the
    /// future removes what was written.
    ///
    /// # Errors
    /// Each [`ArtifactError`] but `NotFound`; nothing is stored then.
    pub async fn put<S, E>(&self, digest: &Digest, bytes: S) -> Result<Stored, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        put::put(self, digest, bytes).await
    }

    /// The archive, opened for reading from its beginning.
    ///
    /// # Errors
    /// [`ArtifactError::NotFound`] or [`ArtifactError::Io`].
    pub async fn get(&self, digest: &Digest) -> Result<tokio::fs::File, ArtifactError> {
        tokio::fs::File::open(self.path(digest)).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ArtifactError::NotFound { digest: *digest },
            _ => ArtifactError::io("opening an archive")(error),
        })
    }

    /// Bytes of the archive, where it is stored.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, ArtifactError> {
        match tokio::fs::metadata(self.path(digest)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ArtifactError::io("looking for an archive")(error)),
        }
    }

    /// Whether the archive is stored.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub async fn exists(&self, digest: &Digest) -> Result<bool, ArtifactError> {
        Ok(self.size(digest).await?.is_some())
    }

    /// Bounds on what [`put`](Self::put) takes.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.shared.dir.join(format!("{digest}.tar.zst"))
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.shared.dir.join(INCOMING)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }
}
