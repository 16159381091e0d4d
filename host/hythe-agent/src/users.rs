//! Under which user workloads run.

use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::claims::Claims;

/// Users that no package and no person has: systemd's range for dynamic ones
/// (<https://systemd.io/UIDS-GIDS/>).
const RANGE: RangeInclusive<u32> = 61_184..=65_519;

/// The command line's `--workload-user`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WorkloadUser {
    /// One of its own for each workload where the daemon is root, else the daemon's.
    #[default]
    Auto,
    /// The daemon's: workloads are trusted.
    Same,
    /// All under this one.
    Named(String),
}

impl std::str::FromStr for WorkloadUser {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::Same,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// A user and its group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserId {
    pub uid: u32,
    pub gid: u32,
}

/// Who workloads are.
#[derive(Debug)]
pub enum Users {
    Same,
    Fixed(UserId),
    Own { claims: Claims, first: u32 },
}

impl Users {
    /// Decides from the command line and this process's rights. `seed` parts the beginnings of daemons on
    /// one machine.
    ///
    /// # Errors
    /// Where the wanted user can't be had or could not reach its files below `data`.
    pub fn new(wanted: &WorkloadUser, data: &Path, seed: u32) -> anyhow::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let users = match wanted {
            WorkloadUser::Same => return Ok(Self::Same),
            WorkloadUser::Auto if !root => return Ok(Self::Same),
            WorkloadUser::Auto => {
                let span = RANGE.end() - RANGE.start() + 1;
                Self::Own { claims: Claims::new("user"), first: seed % span }
            }
            WorkloadUser::Named(name) if !root => {
                bail!("--workload-user {name} needs root: start hythe-agent as root, or leave the option out")
            }
            WorkloadUser::Named(name) => Self::Fixed(named(name)?),
        };
        for folder in data.ancestors() {
            let mode = folder.metadata().with_context(|| format!("reading {}", folder.display()))?.mode();
            if mode & 0o001 == 0 {
                bail!(
                    "workloads run under users of their own and could not reach their files: {folder} is closed to \
                     others. Choose another --data-dir (such as /var/lib/hythe-agent), run `chmod o+x {folder}`, or \
                     use --workload-user none where workloads are trusted",
                    folder = folder.display()
                );
            }
        }
        Ok(users)
    }

    /// The user for a new workload; none where it runs as the daemon does.
    pub fn allocate(&self) -> io::Result<Option<UserId>> {
        let (claims, first) = match self {
            Self::Same => return Ok(None),
            Self::Fixed(user) => return Ok(Some(*user)),
            Self::Own { claims, first } => (claims, *first),
        };
        let span = RANGE.end() - RANGE.start() + 1;
        let mut candidates = (0..span).map(|offset| RANGE.start() + (first + offset) % span);
        let free = candidates.find(|uid| claims.claim(*uid));
        match free {
            Some(uid) => Ok(Some(UserId { uid, gid: uid })),
            None => Err(io::Error::other(format!(
                "all users from {} to {} are taken by workloads",
                RANGE.start(),
                RANGE.end()
            ))),
        }
    }

    /// Claims the user that a workload has from an earlier run of the daemon.
    pub fn reclaim(&self, user: UserId) {
        if let Self::Own { claims, .. } = self
            && !claims.claim(user.uid)
        {
            tracing::warn!(
                workload.uid = user.uid,
                "another daemon on this machine uses the same user for a workload"
            );
        }
    }

    pub fn release(&self, user: UserId) {
        if let Self::Own { claims, .. } = self {
            claims.release(user.uid);
        }
    }
}

fn named(name: &str) -> anyhow::Result<UserId> {
    let accounts = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let account =
        accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let account = account.with_context(|| {
        format!("--workload-user {name}: /etc/passwd has no such user (`useradd --system {name}` makes it)")
    })?;
    let number = |index: usize| account.get(index).and_then(|field| field.parse().ok());
    match (number(2), number(3)) {
        (Some(0), _) => bail!(
            "--workload-user {name}: workloads must not run as root; use `none` to say that you want that"
        ),
        (Some(uid), Some(gid)) => Ok(UserId { uid, gid }),
        _ => bail!("--workload-user {name}: its line in /etc/passwd is damaged"),
    }
}
