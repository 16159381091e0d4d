//! The daemon's data folder: what lies where, and that one daemon has it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent_api::RegistrationResponse;
use anyhow::{Context, bail};
use model::DeploymentId;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::durable;
use crate::shim::plan::RunFolder;

/// Others may pass through to what is theirs, and list nothing.
const PASSABLE: u32 = 0o711;
const PRIVATE: u32 = 0o700;

/// The folder, not yet anybody's.
#[derive(Debug, Clone)]
pub struct DataFolder {
    root: PathBuf,
}

/// Where the daemon listens: content of `agent.json`.
#[derive(Debug, Serialize)]
struct Listening {
    pid: u32,
    address: String,
    port: u16,
}

impl DataFolder {
    /// Makes it where needed.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        make(path, PASSABLE).with_context(|| format!("making the data folder {}", path.display()))?;
        let root = path.canonicalize().with_context(|| format!("finding {}", path.display()))?;
        for (folder, mode) in [("sources", PRIVATE), ("state", PRIVATE), ("workloads", PASSABLE)] {
            make(&root.join(folder), mode)
                .with_context(|| format!("making {}", root.join(folder).display()))?;
        }
        Ok(Self { root })
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A number that differs from folder to folder.
    pub fn seed(&self) -> u32 {
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        digest.iter().take(4).fold(0, |seed, byte| seed << 8 | u32::from(*byte))
    }

    /// Takes the folder for this process, until the file is dropped.
    ///
    /// # Errors
    /// Where another daemon has it: names its pid.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("agent.lock");
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                bail!(
                    "the data folder {} is in use by the hythe-agent with pid {}: stop that one, or choose another --data-dir",
                    self.root.display(),
                    pid.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    fn identity_path(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    /// What the host gave this machine when it joined.
    pub fn identity(&self) -> anyhow::Result<Option<RegistrationResponse>> {
        Ok(durable::read_json(&self.identity_path())?)
    }

    pub fn write_identity(&self, identity: &RegistrationResponse) -> anyhow::Result<()> {
        durable::write_json(&self.identity_path(), identity)
            .with_context(|| format!("writing {}", self.identity_path().display()))
    }

    fn listening_path(&self) -> PathBuf {
        self.root.join("agent.json")
    }

    pub fn write_listening(&self, address: std::net::SocketAddr) -> io::Result<()> {
        let listening =
            Listening { pid: std::process::id(), address: address.ip().to_string(), port: address.port() };
        durable::write_json(&self.listening_path(), &listening)?;
        // No secret: another user's host beside it may look.
        fs::set_permissions(self.listening_path(), Permissions::from_mode(0o644))
    }

    pub fn remove_listening(&self) -> io::Result<()> {
        durable::remove(&self.listening_path())
    }

    pub fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    pub fn ports(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    /// Durable state of one workload, also of one that is gone.
    pub fn state(&self, deployment: DeploymentId) -> PathBuf {
        self.root.join("state").join(format!("{deployment}.json"))
    }

    /// All deployments that have a state.
    pub fn deployments(&self) -> io::Result<Vec<DeploymentId>> {
        let names = fs::read_dir(self.root.join("state"))?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    pub fn workload(&self, deployment: DeploymentId) -> WorkloadFolder {
        WorkloadFolder { root: self.root.join("workloads").join(deployment.to_string()) }
    }
}

/// All files of one workload.
#[derive(Debug, Clone)]
pub struct WorkloadFolder {
    root: PathBuf,
}

impl WorkloadFolder {
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Makes the folders that are the daemon's own.
    pub fn make(&self) -> io::Result<()> {
        make(&self.root, PASSABLE)?;
        for folder in [self.log(), self.executions(), self.run().path().to_owned()] {
            make(&folder, PRIVATE)?;
        }
        Ok(())
    }

    /// The source, unpacked; the workload's own.
    pub fn app(&self) -> PathBuf {
        self.root.join("app")
    }

    /// While it is being unpacked.
    pub fn unpacking(&self) -> PathBuf {
        self.root.join("app.new")
    }

    /// `HOME`; the workload's own.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn run(&self) -> RunFolder {
        RunFolder::new(self.root.join("run"))
    }

    pub fn executions(&self) -> PathBuf {
        self.root.join("executions")
    }

    /// Says for which source and which commands the set-up is done.
    pub fn setup_done(&self) -> PathBuf {
        self.root.join("setup-done")
    }
}

/// Makes a folder with all above it; its own mode is set, whatever the umask says.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}
