//! Uploaded source archives, by their digest.
//!
//! A file under its final name is whole, has that digest and was checked; half of one is never there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::archive::{self, ArchiveError, Caps, is_disk_full};
use crate::durable;

/// Bytes of an archive as it is sent.
const MAX_COMPRESSED: u64 = 2 << 30;
/// An archive that nobody has used for so long goes.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why an archive was not stored. Nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0:?} is not a digest: expected 64 lower-case hex digits (SHA-256)")]
    InvalidDigest(String),
    #[error("the archive's SHA-256 is {found}, not {expected}: it changed on its way; send it again")]
    DigestMismatch { expected: String, found: String },
    #[error("the archive is longer than {MAX_COMPRESSED} bytes")]
    TooLarge,
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the machine's disk is full: free space where the daemon keeps its data, then send it again")]
    DiskFull,
    #[error("the upload broke off: send it again")]
    BrokenOff,
    #[error("storing the archive failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        if is_disk_full(&error) { Self::DiskFull } else { Self::Io(error) }
    }
}

/// The folder of archives.
#[derive(Debug)]
pub struct Sources {
    folder: PathBuf,
    uploads: AtomicU64,
}

impl Sources {
    /// Removes what uploads left that were cut off.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                durable::remove(&entry.path())?;
            }
        }
        Ok(Self { folder, uploads: AtomicU64::new(0) })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.tar.zst"))
    }

    /// The archive, where it is here; it counts as used.
    pub fn find(&self, digest: &str) -> Option<PathBuf> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        let _ = file.set_modified(SystemTime::now());
        Some(path)
    }

    /// Begins an upload.
    pub fn upload(&self, digest: &str) -> Result<Upload, SourceError> {
        check_digest(digest)?;
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let part = self.folder.join(format!("{digest}.{number}.part"));
        let file = File::create(&part)?;
        Ok(Upload {
            file,
            part,
            path: self.path(digest),
            digest: digest.to_owned(),
            sha256: Sha256::new(),
            length: 0,
        })
    }

    /// Unpacks an archive into a new folder.
    pub fn unpack(&self, digest: &str, into: &Path) -> Result<(), SourceError> {
        let path = self.find(digest).ok_or_else(|| {
            SourceError::Io(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the source {digest} is not here any more"),
            ))
        })?;
        match archive::unpack(File::open(path)?, into, Caps::default()) {
            Err(error) if error.is_disk_full() => Err(SourceError::DiskFull),
            other => Ok(other?),
        }
    }

    /// Removes what has not been used for a week.
    pub fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let unused =
                entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
            if unused.is_some_and(|unused| unused > KEEP) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether this is a digest's text.
pub fn check_digest(digest: &str) -> Result<(), SourceError> {
    let right = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if right { Ok(()) } else { Err(SourceError::InvalidDigest(digest.to_owned())) }
}

/// An archive that is coming in. Dropped before [`finish`](Self::finish) it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: File,
    part: PathBuf,
    path: PathBuf,
    digest: String,
    sha256: Sha256,
    length: u64,
}

impl Upload {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.length += bytes.len() as u64;
        if self.length > MAX_COMPRESSED {
            return Err(SourceError::TooLarge);
        }
        self.sha256.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    /// Checks digest and content; only then the archive is there.
    pub fn finish(mut self) -> Result<(), SourceError> {
        let found = hex::encode(std::mem::take(&mut self.sha256).finalize());
        if found != self.digest {
            return Err(SourceError::DigestMismatch { expected: self.digest.clone(), found });
        }
        archive::check(File::open(&self.part)?, Caps::default())?;
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        Ok(durable::sync_folder_of(&self.path)?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = durable::remove(&self.part);
    }
}
