//! What the daemon and a shim leave for each other in a run's folder.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use agent_api::Exit;
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;
use crate::users::UserId;

/// What a shim is to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Which run of the workload it is; counts up.
    pub run: u64,
    pub incarnation: u64,
    /// Commands that run to their end first; a failing one ends the run.
    pub setup: Vec<Vec<String>>,
    /// Written when the last of them has succeeded: file and content.
    pub setup_done: Option<(PathBuf, String)>,
    pub command: Vec<String>,
    pub cwd: PathBuf,
    /// The same for a person, relative to the source.
    pub shown_cwd: String,
    /// All of the environment.
    pub env: BTreeMap<String, String>,
    /// None: this process's.
    pub user: Option<UserId>,
    pub cgroup: Option<PathBuf>,
    pub output: Output,
    /// The command is killed after so long.
    pub timeout_ms: Option<u64>,
}

/// Where output goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Output {
    /// Lines into the log in this folder.
    Log(PathBuf),
    /// Frames into this file, ended by the exit.
    Frames(PathBuf),
}

/// The shim that holds the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShimNote {
    pub run: u64,
    pub incarnation: u64,
    pub process: ProcessId,
}

/// What it runs at present: leader of a process group of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChildNote {
    pub run: u64,
    pub process: ProcessId,
    /// Whether it is the command itself, no set-up.
    pub is_command: bool,
}

/// How the run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndNote {
    pub run: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The command's own end.
    Ended(Exit),
    SetupFailed {
        command: Vec<String>,
        exit: Exit,
    },
    /// The command, or a set-up command, could not be started at all. One sentence.
    NotStarted(String),
    /// It was told to stop before the command was started.
    Stopped,
}

/// The folder of a run. Who holds [`lock`](Self::lock) is the only one who may run there.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    pub fn shim(&self) -> PathBuf {
        self.0.join("shim.json")
    }

    pub fn child(&self) -> PathBuf {
        self.0.join("child.json")
    }

    pub fn end(&self) -> PathBuf {
        self.0.join("end.json")
    }

    /// While this file is there, the shim starts nothing more.
    pub fn stop(&self) -> PathBuf {
        self.0.join("stop")
    }

    pub fn errors(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// Takes the lock; none where somebody has it. It is held as long as any copy of the file is open, in
    /// this process or in one that inherited it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.0.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
