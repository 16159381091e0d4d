//! Local ports for workloads' services, and who listens on a port.
//!
//! Ports go round the whole range before one is used again, so that what still remembers an old owner
//! meets nobody rather than another tenant. The range lies below Linux's ephemeral ports (32768 on), from
//! which any program's outgoing connections take theirs.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::durable;

const RANGE: RangeInclusive<u16> = 20_000..=32_767;

/// No port is left.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("all local ports from {} to {} are taken", RANGE.start(), RANGE.end())]
    Exhausted,
    #[error("the next local port can't be noted")]
    Note(#[from] io::Error),
}

/// Gives each service a port of its own.
#[derive(Debug)]
pub struct Ports {
    path: PathBuf,
    next: Mutex<u16>,
    claims: Claims,
}

#[derive(Serialize, Deserialize)]
struct Noted {
    next: u16,
}

impl Ports {
    /// Goes on where the file says. `seed` parts the beginnings of daemons on one machine.
    pub fn open(path: PathBuf, seed: u32) -> io::Result<Self> {
        let span = u32::from(RANGE.end() - RANGE.start()) + 1;
        let first = RANGE.start() + (seed % span) as u16;
        let next = durable::read_json::<Noted>(&path)?.map_or(first, |noted| noted.next);
        Ok(Self { path, next: Mutex::new(next), claims: Claims::new("port") })
    }

    /// So many ports that nothing listens on and no workload of any daemon here has.
    pub fn allocate(&self, count: usize) -> Result<Vec<u16>, PortError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut next = self.next.lock();
        let mut found = Vec::with_capacity(count);
        for _ in RANGE {
            let port = *next;
            *next = if port >= *RANGE.end() { *RANGE.start() } else { port + 1 };
            if !self.claims.claim(u32::from(port)) {
                continue;
            }
            if !is_free(port) {
                self.release(&[port]);
                continue;
            }
            found.push(port);
            if found.len() == count {
                durable::write_json(&self.path, &Noted { next: *next })?;
                return Ok(found);
            }
        }
        self.release(&found);
        Err(PortError::Exhausted)
    }

    /// Claims a port that a workload has from an earlier run of the daemon.
    pub fn reclaim(&self, port: u16) -> bool {
        self.claims.claim(u32::from(port))
    }

    pub fn release(&self, ports: &[u16]) {
        ports.iter().for_each(|port| self.claims.release(u32::from(*port)));
    }
}

/// Whether nothing listens on the port, at any address.
fn is_free(port: u16) -> bool {
    let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    match dual {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
        // A machine without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(),
    }
}

/// Whether one of these processes listens on the TCP port.
pub fn is_listening(processes: &[u32], port: u16) -> bool {
    let mut sockets = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        sockets.extend(text.lines().skip(1).filter_map(|line| listener(line, port)));
    }
    !sockets.is_empty() && processes.iter().any(|pid| has_socket(*pid, &sockets))
}

/// The socket's inode, where the line of `/proc/net/tcp` (`proc_net(5)`) is a listener on the port.
fn listener(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    listens.then(|| fields.get(9)?.parse().ok()).flatten()
}

fn has_socket(pid: u32, sockets: &HashSet<u64>) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| {
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        let inode =
            link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| sockets.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_go_round_and_are_used_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        let ports = Ports::open(path.clone(), 77).unwrap();
        let first = ports.allocate(2).unwrap();
        ports.release(&first);
        let second = ports.allocate(1).unwrap();
        assert!(!first.contains(&second[0]));
        drop(ports);
        let third = Ports::open(path, 77).unwrap().allocate(1).unwrap();
        assert!(!first.contains(&third[0]) && third != second);
        assert!(RANGE.contains(&third[0]));
    }

    #[test]
    fn a_port_that_something_listens_on_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::open(dir.path().join("ports.json"), 3000).unwrap();
        let port = ports.allocate(1).unwrap()[0];
        ports.release(&[port]);
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        *ports.next.lock() = port;
        assert_ne!(ports.allocate(1).unwrap()[0], port);
        assert!(is_listening(&[std::process::id()], port));
        assert!(!is_listening(&[1], port));
    }
}
