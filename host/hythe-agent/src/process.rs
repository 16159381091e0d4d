//! Processes as `/proc` shows them: who one is for certain, its descendants, its end.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

/// A process that can't be taken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks from the machine's start to the process's (`/proc/<pid>/stat`, field 22).
    start: u64,
    /// Which start of the machine.
    boot: String,
}

impl ProcessId {
    /// The process that bears this number now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: Stat::of(pid)?.start, boot: boot_id() })
    }

    /// Whether it still is there and is more than a zombie.
    pub fn is_alive(&self) -> bool {
        self.boot == boot_id()
            && Stat::of(self.pid).is_some_and(|stat| stat.start == self.start && !stat.is_ended())
    }

    /// Signals its process group, where the process itself is still there.
    pub fn signal_group(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = raw(self.pid)
        {
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Signals the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = raw(self.pid)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// What this start of the machine is called.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Kills one process by its number.
pub fn kill(pid: u32) {
    if let Some(pid) = raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The parts of `/proc/<pid>/stat` that matter here (`proc_pid_stat(5)`).
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    state: u8,
    pub parent: u32,
    start: u64,
}

impl Stat {
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets and may hold anything, brackets too.
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start })
    }

    fn is_ended(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// All processes that are more than zombies.
fn all() -> Vec<(u32, Stat)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).filter(|(_, stat)| !stat.is_ended()).collect()
}

/// Children of these processes, their children, and so on; without themselves.
pub fn descendants(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, stat) in all() {
        children.entry(stat.parent).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut next = roots.to_vec();
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// Processes whose environment, as they were started, has this entry (`NAME=value`).
pub fn with_environment(entry: &str) -> Vec<u32> {
    let has_entry = |pid: &u32| {
        std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
    };
    let own = std::process::id();
    all().into_iter().map(|(pid, _)| pid).filter(|pid| *pid != own).filter(has_entry).collect()
}

/// Tells when a process has ended; it need not be a child.
#[derive(Debug)]
pub struct Watched {
    pidfd: AsyncFd<OwnedFd>,
}

impl Watched {
    /// None where it has ended already.
    pub fn new(process: &ProcessId) -> io::Result<Option<Self>> {
        let Some(pid) = raw(process.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Only now: the number may have gone to another process before it was opened.
        if !process.is_alive() {
            return Ok(None);
        }
        Ok(Some(Self { pidfd: readable(pidfd)? }))
    }

    /// Returns once it has ended. May be dropped and called again.
    pub async fn ended(&self) {
        // An error means that the runtime shuts down: nobody waits any more.
        let _ = self.pidfd.readable().await;
    }
}

/// A signal's name, `SIGKILL`.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(signal - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {signal}"), |name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_hostile_name_is_read() {
        let line = "42 (a) Z 7 (b) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), (b'S', 7, 12345));
    }

    #[test]
    fn this_process_is_itself_and_no_later_one() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start: own.start + 1, ..own.clone() }.is_alive());
        assert!(!ProcessId { boot: "another".to_owned(), ..own }.is_alive());
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(40), "signal 40");
    }
}
