//! The data directory: its lock, its folders, its password, and the cluster made once.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::binaries::Binaries;
use crate::error::Error;
use crate::postmaster::SOCKET;
use crate::user::{self, User};

/// The database's superuser, and the one that the host connects as.
pub(crate) const ROLE: &str = "hythe";
/// A unix socket's path has 108 bytes on Linux and 104 on macOS (unix(7), `sun_path`); Postgres' lock file beside it
/// bears a longer name.
const MAX_SOCKET_PATH: usize = 100;
/// The log begins anew beyond this many bytes; one older one is kept.
const MAX_LOG: u64 = 10 << 20;

/// Whether this is an open file of this path.
fn is_same(file: &File, path: &Path) -> bool {
    let both = file.metadata().and_then(|file| Ok((file, std::fs::metadata(path)?)));
    both.is_ok_and(|(file, path)| (file.dev(), file.ino()) == (path.dev(), path.ino()))
}

/// A data directory whose lock is held.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// Real path.
    pub root: PathBuf,
    pub user: Option<User>,
    lock: File,
}

impl DataDir {
    /// Makes the folder where there is none, and locks it; `handed_over`: with the lock that another process
    /// holds and hands to this one, until both have ended.
    pub fn lock(path: &Path, handed_over: Option<File>) -> Result<Self, Error> {
        let user = user::choose()?;
        std::fs::create_dir_all(path).map_err(Error::io("make the folder", path))?;
        let root = path.canonicalize().map_err(Error::io("find", path))?;
        let lock_path = root.join("lock");
        let is_handed_over = handed_over.is_some();
        let mut lock = match handed_over {
            Some(lock) if is_same(&lock, &lock_path) => lock,
            Some(_) => {
                let other = std::io::Error::new(ErrorKind::InvalidInput, "it is another file's");
                return Err(Error::io("use the lock that was handed over for", &lock_path)(other));
            }
            None => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&lock_path)
                .map_err(Error::io("open", &lock_path))?,
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // A name is better than none: what can't be read is said to be unknown.
            let _ = lock.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(Error::InUse { data_dir: root, pid });
        }
        let mut locked = Self { root, user, lock };
        if is_handed_over {
            // All else is as the other process made it.
            return Ok(locked);
        }
        locked.claim()?;
        let Self { root, user, lock } = locked;
        // The server's user must pass through, but need not look around.
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        std::fs::set_permissions(&root, Permissions::from_mode(mode))
            .map_err(Error::io("set the mode of", &root))?;
        if let Some(user) = &user {
            user::check_reachable(user, &root.join("cluster"))?;
        }
        Ok(Self { root, user, lock })
    }

    /// Says in the lock whose it is.
    pub fn claim(&mut self) -> Result<(), Error> {
        let mut write = || {
            self.lock.set_len(0)?;
            self.lock.rewind()?;
            writeln!(self.lock, "{}", std::process::id())
        };
        write().map_err(Error::io("write", &self.root.join("lock")))
    }

    /// The lock itself, for another process.
    pub fn share_lock(&self) -> std::io::Result<File> {
        self.lock.try_clone()
    }

    pub fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    pub fn password_file(&self) -> PathBuf {
        self.root.join("password")
    }

    /// The major version that the cluster was made by; none where there is no cluster.
    pub fn version(&self) -> Result<Option<u32>, Error> {
        let path = self.cluster().join("PG_VERSION");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(
                text.trim()
                    .parse()
                    .map_err(|_| Error::io("read a version from", &path)(ErrorKind::InvalidData.into()))?,
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// The password, made at the first time; only the host's own user may read it.
    pub fn password(&self) -> Result<String, Error> {
        let path = self.password_file();
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("read", &path)(error));
            }
            _ => {}
        }
        if self.cluster().exists() {
            return Err(Error::Password { path, cluster: self.cluster() });
        }
        let password = random_hex(24)?;
        let part = self.root.join("password.part");
        let _ = std::fs::remove_file(&part);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(password.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(Error::io("write", &path))?;
        Ok(password)
    }

    /// The folder of the socket, made where there is none: inside the data directory, or a short one where that
    /// path is too long for a socket.
    pub fn socket_dir(&self) -> Result<PathBuf, Error> {
        let inside = self.root.join("socket");
        let dir = if inside.join(SOCKET).as_os_str().len() <= MAX_SOCKET_PATH {
            inside
        } else {
            PathBuf::from(format!("/tmp/hythe-{:016x}", fnv(self.root.as_os_str().as_encoded_bytes())))
        };
        self.own_folder(&dir)?;
        Ok(dir)
    }

    /// Makes a folder that only the server's user may enter, or checks that it is one: in /tmp it could be
    /// a stranger's.
    fn own_folder(&self, dir: &Path) -> Result<(), Error> {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => self.give(dir)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("make the folder", dir)(error)),
        }
        let data = std::fs::symlink_metadata(dir).map_err(Error::io("look at", dir))?;
        let own = rustix::process::geteuid().as_raw();
        let uid = self.user.as_ref().map_or(own, |user| user.uid);
        if !data.is_dir() || (data.uid() != uid && data.uid() != own) {
            return Err(Error::SocketDirectory { path: dir.to_owned() });
        }
        // A crash between making and giving leaves it ours.
        if data.uid() != uid {
            self.give(dir)?;
        }
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(Error::io("set the mode of", dir))
    }

    /// Hands a file to the server's user.
    fn give(&self, path: &Path) -> Result<(), Error> {
        match &self.user {
            Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                .map_err(Error::io("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// The log, to append to.
    pub fn open_log(&self) -> Result<File, Error> {
        let path = self.log();
        if std::fs::metadata(&path).is_ok_and(|data| data.len() > MAX_LOG) {
            std::fs::rename(&path, self.root.join("postgres.log.old")).map_err(Error::io("rename", &path))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(Error::io("open", &path))
    }

    /// Makes the cluster where there is none: beside, then renamed, so that a crash leaves nothing that
    /// looks like one.
    pub fn ensure_cluster(&self, binaries: &Binaries, password: &str, durable: bool) -> Result<(), Error> {
        self.remove_leftovers()?;
        if self.cluster().join("PG_VERSION").exists() {
            return Ok(());
        }
        if self.cluster().exists() {
            // Only ever an empty folder: ours are renamed whole.
            std::fs::remove_dir(self.cluster()).map_err(Error::io("replace", &self.cluster()))?;
        }
        // A name of its own: a killed host's initdb may still be at work under another.
        let part = self.root.join(format!("{PART}{}", random_hex(8)?));
        self.own_folder(&part)?;
        let password_file = self.root.join(format!("{PART}password"));
        let _ = std::fs::remove_file(&password_file);
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&password_file)?;
            file.write_all(password.as_bytes())
        };
        write().map_err(Error::io("write", &password_file))?;
        self.give(&password_file)?;
        let mut command = Command::new(binaries.initdb());
        command
            .arg("-D")
            .arg(&part)
            .args([
                "--username",
                ROLE,
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
            ])
            .arg(format!("--pwfile={}", password_file.display()))
            .stdin(Stdio::null());
        if durable {
            command.arg("--auth=scram-sha-256");
        } else {
            // No password either: a client that is stopped between its two halves, as a test's may be, holds up
            // every DROP DATABASE (which waits for all backends, and one that authenticates does not answer).
            command.args(["--no-sync", "--auth=trust"]);
        }
        prepare(command.current_dir("/"), self.user.as_ref());
        let output = command.output().map_err(Error::io("run", &binaries.initdb()));
        let _ = std::fs::remove_file(&password_file);
        let output = output?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let _ = std::fs::remove_dir_all(&part);
            return Err(Error::Initdb { data_dir: self.root.clone(), output: text.trim().to_owned() });
        }
        std::fs::rename(&part, self.cluster()).map_err(Error::io("rename", &part))?;
        File::open(&self.root).and_then(|dir| dir.sync_all()).map_err(Error::io("write", &self.root))
    }

    /// What an initdb left that was cut short.
    fn remove_leftovers(&self) -> Result<(), Error> {
        let entries = std::fs::read_dir(&self.root).map_err(Error::io("read", &self.root))?;
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(PART.as_bytes()) {
                let path = entry.path();
                remove_while_written(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Removes a folder or a file. The initdb of a host that was killed outlives it for a moment, and makes files where
/// others are being removed, until it misses one.
fn remove_while_written(path: &Path) -> std::io::Result<()> {
    let mut left = 500;
    loop {
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && left > 0 => left -= 1,
            result => return result,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn random_hex(bytes: usize) -> Result<String, Error> {
    let source = Path::new("/dev/urandom");
    let mut buffer = vec![0; bytes];
    File::open(source)
        .and_then(|mut random| random.read_exact(&mut buffer))
        .map_err(Error::io("read", source))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a cluster in the making is called, before something of its own.
const PART: &str = "cluster.part-";

/// Another user, where one is given, and no settings of the caller's own client programs.
pub(crate) fn prepare(command: &mut Command, user: Option<&User>) {
    use std::os::unix::process::CommandExt as _;
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid).env("HOME", "/");
    }
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
}

/// FNV-1a, 64 bits: names a path shortly. Not for secrets; a foreign folder of that name is refused.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
