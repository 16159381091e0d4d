//! What all parts of one daemon share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::cgroup::Cgroups;
use crate::data::DataFolder;
use crate::ports::Ports;
use crate::source::Sources;
use crate::users::Users;

/// How the daemon itself is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Serving,
    /// It ends, and workloads go on without it.
    Leaving,
    /// It ends, and ends workloads; they stay wanted.
    Stopping,
}

#[derive(Debug)]
pub struct Context {
    pub data: DataFolder,
    pub cgroups: Cgroups,
    pub ports: Ports,
    pub users: Users,
    pub sources: Sources,
    /// The program that has the shim's subcommand.
    pub program: PathBuf,
    /// `PATH` of workloads that say none.
    pub path: String,
    pub life: watch::Sender<Life>,
}

pub type Shared = Arc<Context>;
