//! One upload: stream to a temporary file, check, sync, rename.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use crate::{ArtifactError, ArtifactStore, Digest, Stored, archive};

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

pub(crate) async fn put<S, E>(
    store: &ArtifactStore,
    digest: &Digest,
    bytes: S,
) -> Result<Stored, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(size) = store.size(digest).await? {
        // Of the same digest, or the caller is told that it is another's.
        let actual = receive(store, bytes, None).await?.digest;
        return if actual == *digest {
            Ok(Stored { size, created: false })
        } else {
            Err(ArtifactError::DigestMismatch { expected: *digest, actual })
        };
    }

    let incoming = store.incoming();
    let (file, temporary) = blocking("making a temporary file", move || {
        let file = tempfile::Builder::new()
            .suffix(".part")
            .tempfile_in(incoming)
            .map_err(ArtifactError::io("making a temporary file"))?;
        Ok(file.into_parts())
    })
    .await?;
    let mut file = tokio::io::BufWriter::with_capacity(BUFFER, tokio::fs::File::from_std(file));
    let received = receive(store, bytes, Some(&mut file)).await?;
    if received.digest != *digest {
        return Err(ArtifactError::DigestMismatch { expected: *digest, actual: received.digest });
    }
    file.flush().await.map_err(ArtifactError::io("writing an archive"))?;
    // A disk with delayed allocation may say only here that it is full.
    file.get_ref().sync_all().await.map_err(ArtifactError::io("syncing an archive"))?;
    drop(file);

    let limits = store.limits();
    let target = store.path(digest);
    let dir = store.dir().to_owned();
    blocking("checking an archive", move || {
        archive::check(&temporary, &limits)?;
        keep(temporary, &target)?;
        let dir = std::fs::File::open(&dir).map_err(ArtifactError::io("opening the folder"))?;
        dir.sync_all().map_err(ArtifactError::io("syncing the folder"))
    })
    .await?;
    tracing::debug!(artifact.digest = %digest, artifact.bytes = received.size, "archive stored");
    Ok(Stored { size: received.size, created: true })
}

/// Gives the file its final name. Another upload of the same bytes may have done so already: then one
/// replaces the other, and both are right.
fn keep(temporary: TempPath, target: &std::path::Path) -> Result<(), ArtifactError> {
    temporary.persist(target).map_err(|error| ArtifactError::io("renaming an archive")(error.error))
}

struct Received {
    size: u64,
    digest: Digest,
}

/// Reads the stream to its end, within the limit, into the file where there is one.
async fn receive<S, E>(
    store: &ArtifactStore,
    bytes: S,
    mut file: Option<&mut tokio::io::BufWriter<tokio::fs::File>>,
) -> Result<Received, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = store.limits().archive_bytes;
    let mut bytes = pin!(bytes);
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|error| ArtifactError::Body { received: size, source: error.into() })?;
        size += chunk.len() as u64;
        if size > limit {
            return Err(ArtifactError::TooLarge { what: "has too many bytes", limit });
        }
        hash.update(&chunk);
        if let Some(file) = file.as_mut() {
            file.write_all(&chunk).await.map_err(ArtifactError::io("writing an archive"))?;
        }
    }
    Ok(Received { size, digest: Digest::from_bytes(hash.finalize().into()) })
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArtifactError::Io { doing, source: std::io::Error::other(error) }),
    }
}
