//! The folder in which a host keeps all that is its own, and the lock that makes it one host's.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;

const LOCK: &str = "host.lock";

/// The folder, locked until it is dropped.
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Where it is when nobody says: `/var/lib/hythe` for root, else below the user's data folder.
    pub fn default_path() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/hythe");
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(|| PathBuf::from(".")).join("hythe")
    }

    /// Makes the folder where it is missing, and takes its lock; `handed_over`: the lock that another process of
    /// this host holds and shares. Then it is [claimed](Self::claim) when the other gives it up.
    ///
    /// # Errors
    /// Where it can't be made, or another host has it: then that one's pid.
    pub fn open(path: &Path, handed_over: Option<OwnedFd>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("can't make the data directory {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("can't find the data directory {}", path.display()))?;
        if rustix::process::geteuid().is_root() && !is_reachable_by_others(path.parent().unwrap_or(&path)) {
            bail!(
                "the data directory {} lies below a folder that only root may enter; the database and workloads run as \
                 other users: choose another with --data-dir, such as /var/lib/hythe",
                path.display()
            );
        }
        // Others may pass through to their own folders below, and read nothing here.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o711))
            .with_context(|| format!("the data directory {} is not this user's", path.display()))?;
        let file = path.join(LOCK);
        if let Some(lock) = handed_over {
            let lock = File::from(lock);
            let (ours, there) = (lock.metadata()?, std::fs::metadata(&file)?);
            if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
                bail!("the lock that was handed over is not {}", file.display());
            }
            return Ok(Self { path, lock });
        }
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file)
            .with_context(|| format!("can't write {}", file.display()))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            lock.read_to_string(&mut pid).ok();
            bail!(
                "another host (pid {}) uses the data directory {}: stop it, or give this one its own with --data-dir",
                pid.trim(),
                path.display()
            );
        }
        let data_dir = Self { path, lock };
        data_dir.claim()?;
        Ok(data_dir)
    }

    /// Says in the lock that it is this process's.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn claim(&self) -> anyhow::Result<()> {
        let mut lock = &self.lock;
        let mut write = || {
            lock.set_len(0)?;
            lock.rewind()?;
            write!(lock, "{}", std::process::id())
        };
        write().with_context(|| format!("can't write {}", self.path.join(LOCK).display()))
    }

    /// The lock, to share with another process of this host.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// The process of the host that has this folder, where one has.
    ///
    /// # Errors
    /// Where the lock can't be read.
    pub fn holder(path: &Path) -> anyhow::Result<Option<u32>> {
        let file = path.join(LOCK);
        let mut lock = match File::options().read(true).write(true).open(&file) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("can't open {}", file.display())),
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(None);
        }
        let mut pid = String::new();
        lock.read_to_string(&mut pid).with_context(|| format!("can't read {}", file.display()))?;
        Ok(pid.trim().parse().ok())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder below, made where it is missing; only this user's where `private`.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn folder(&self, name: &str, private: bool) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("can't make the folder {}", path.display()))?;
        let mode = if private { 0o700 } else { 0o711 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))
            .with_context(|| format!("the folder {} is not this user's", path.display()))?;
        Ok(path)
    }
}

/// Whether other users can pass through every folder above: an unprivileged database server or workload
/// could not reach its own folder otherwise.
#[must_use]
fn is_reachable_by_others(path: &Path) -> bool {
    path.ancestors().filter(|folder| folder.exists()).all(|folder| {
        std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}
