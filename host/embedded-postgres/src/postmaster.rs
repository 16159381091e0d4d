//! Postmasters that run, or did: what `postmaster.pid` says, and whether it is still true.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// What a postmaster wrote into its cluster (PostgreSQL, `src/include/utils/pidfile.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub pid: u32,
    /// None: not yet written, or none.
    pub socket_dir: Option<PathBuf>,
}

impl PidFile {
    pub fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path(cluster)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let pid = lines.first()?.trim().parse().ok()?;
        let socket_dir =
            lines.get(4).map(|line| line.trim()).filter(|line| !line.is_empty()).map(PathBuf::from);
        Some(Self { pid, socket_dir })
    }
}

pub(crate) fn path(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Whether this process lives and is the postmaster of this cluster (given by its real path): the number
/// alone may by now be another's.
pub(crate) fn is_ours(pid: u32, cluster: &Path) -> bool {
    if cfg!(target_os = "linux") { is_ours_by_proc(pid, cluster) } else { is_ours_by_ps(pid, cluster) }
}

/// A postmaster's working directory is its cluster.
fn is_ours_by_proc(pid: u32, cluster: &Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // `pid (name) state …`; the name may hold anything.
    let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { return false };
    let name = &stat[open + 1..close];
    let state = stat[close + 1..].trim_start().chars().next();
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
    name.starts_with("postgres")
        && !matches!(state, None | Some('Z' | 'X'))
        && cwd.is_ok_and(|cwd| cwd == cluster)
}

/// Where there is no /proc: the state and the command line, which names the cluster.
fn is_ours_by_ps(pid: u32, cluster: &Path) -> bool {
    let output =
        std::process::Command::new("ps").args(["-o", "stat=,command=", "-p", &pid.to_string()]).output();
    let Ok(output) = output else { return false };
    let line = String::from_utf8_lossy(&output.stdout);
    let Some((state, command)) = line.trim().split_once(char::is_whitespace) else { return false };
    !state.starts_with('Z') && command.contains("postgres") && command.contains(&*cluster.to_string_lossy())
}

/// Whether a process of this number exists, whoever's it is.
pub(crate) fn exists(pid: u32) -> bool {
    pid_of(pid).is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        // It may just have ended.
        let _ = kill_process(pid, signal);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Clears away what a dead postmaster left, where Postgres would not do it itself: its number belongs to
/// something else now, so Postgres would believe it alive. Only for the holder of the data directory's lock.
pub(crate) fn clear_stale(cluster: &Path, socket_dir: &Path) {
    let Some(file) = PidFile::read(cluster) else {
        // Cut short, or empty: Postgres would refuse it.
        remove(&path(cluster));
        return;
    };
    if exists(file.pid) && !is_ours(file.pid, cluster) {
        tracing::warn!(
            pid = file.pid,
            "process is not the postmaster that left postmaster.pid: clearing it away"
        );
        remove(&path(cluster));
        for dir in [Some(socket_dir), file.socket_dir.as_deref()].into_iter().flatten() {
            remove(&dir.join(format!("{SOCKET}.lock")));
            remove(&dir.join(SOCKET));
        }
    }
}

/// The socket's name in its folder: Postgres derives it from the port.
pub(crate) const SOCKET: &str = ".s.PGSQL.5432";

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "can't remove a stale file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_are_read_whole_or_in_part() {
        let whole = "123\n/data/cluster\n1700000000\n5432\n/data/socket\n\n  1 2\nready   \n";
        assert_eq!(
            PidFile::parse(whole),
            Some(PidFile { pid: 123, socket_dir: Some("/data/socket".into()) })
        );
        assert_eq!(PidFile::parse("123\n/data"), Some(PidFile { pid: 123, socket_dir: None }));
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn this_test_is_no_postmaster() {
        let pid = std::process::id();
        assert!(exists(pid));
        assert!(!is_ours(pid, &std::env::current_dir().unwrap()));
        assert!(!is_ours_by_ps(pid, Path::new("/data/cluster")));
    }
}
