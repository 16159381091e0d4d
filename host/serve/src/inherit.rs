//! Listening sockets handed from one process to the next, so that a restart refuses nobody.
//!
//! The receiving side speaks the protocol of systemd's socket activation (`sd_listen_fds(3)`): descriptors from 3
//! on, counted by `LISTEN_FDS`, named by `LISTEN_FDNAMES`, meant for the process `LISTEN_PID`. A host that starts
//! its successor can't know that pid before; it names its own in `HYTHE_HANDED_BY` instead, and only its child
//! takes what is there.
//!
//! Always holds: what is handed over is the socket itself with its queue, so a connection that the kernel has finished
//! and nobody has accepted yet reaches whoever accepts next. Each of several sockets that share an address has
//! its own queue: all of them are handed over, and all must be accepted from ([`spread`]).
//!
//! Deliberately absent: waiting until the successor is ready, and draining (the program's business).

use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use parking_lot::Mutex;
use rustix::net::sockopt;

use crate::bind::{BindError, bind, bind_shared};

/// The first descriptor of the protocol.
const FIRST: RawFd = 3;
/// More is a mistake.
const MOST: usize = 4_096;
const HANDED_BY: &str = "HYTHE_HANDED_BY";

/// What this process got from the one that started it.
#[derive(Debug, Default)]
pub struct Inherited {
    left: Mutex<Vec<Named>>,
}

#[derive(Debug)]
struct Named {
    name: String,
    descriptor: OwnedFd,
}

/// Why what was handed over can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error(
        "{variable}={value:?} is no number of descriptors: leave it to systemd or to the host that starts this one"
    )]
    Variable { variable: &'static str, value: String },
    #[error(
        "descriptor {descriptor} of LISTEN_FDS is not open: leave LISTEN_FDS to systemd or to the host that starts this one"
    )]
    NotOpen {
        descriptor: RawFd,
        #[source]
        source: io::Error,
    },
    #[error("the socket inherited for {address} can't be used")]
    Unusable {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Why there is nothing to listen with.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Inherit(#[from] InheritError),
}

impl Inherited {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes what `LISTEN_FDS` names, where it is meant for this process. To be called once, at the very start:
    /// the descriptors are its own from then on, and no program that it starts gets them.
    ///
    /// # Errors
    /// Where the variables contradict what is there.
    pub fn from_environment() -> Result<Self, InheritError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let pid = std::process::id().to_string();
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
        let for_us = variable("LISTEN_PID").is_some_and(|value| value == pid)
            || variable(HANDED_BY).is_some_and(|value| Some(value) == parent);
        let Some(count) = variable("LISTEN_FDS").filter(|_| for_us) else { return Ok(Self::none()) };
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let count = match count.parse::<usize>() {
            Ok(number) if number <= MOST => number,
            _ => return Err(InheritError::Variable { variable: "LISTEN_FDS", value: count }),
        };
        let mut names = names.split(':');
        let mut left = Vec::new();
        for descriptor in (FIRST..).take(count) {
            let name = names.next().unwrap_or_default().to_owned();
            left.push(Named { name, descriptor: own(descriptor, count)? });
        }
        Ok(Self { left: Mutex::new(left) })
    }

    /// The sockets that listen on `address`. Where its port is 0: those of the first port of the same address of the
    /// machine that were handed over under `name`.
    ///
    /// # Errors
    /// Where one can't be put into the state that [`crate::bind`] leaves sockets in.
    pub fn take(&self, name: &str, address: SocketAddr) -> Result<Vec<TcpListener>, InheritError> {
        let any_port = |named: &Named| {
            listens_on(&named.descriptor).filter(|own| own.ip() == address.ip() && named.name == name)
        };
        let wanted = match address.port() {
            0 => self.left.lock().iter().find_map(any_port),
            _ => Some(address),
        };
        let fits = |named: &Named| wanted.is_some() && listens_on(&named.descriptor) == wanted;
        self.take_where(fits)
            .into_iter()
            .map(|named| {
                let listener = TcpListener::from(named.descriptor);
                let ready = listener
                    .set_nonblocking(true)
                    .and_then(|()| Ok(sockopt::set_tcp_nodelay(&listener, true)?));
                ready.map(|()| listener).map_err(|source| InheritError::Unusable { address, source })
            })
            .collect()
    }

    /// A descriptor of another kind, handed over under `name`.
    pub fn take_descriptor(&self, name: &str) -> Option<OwnedFd> {
        self.take_where(|named| named.name == name && listens_on(&named.descriptor).is_none())
            .pop()
            .map(|named| named.descriptor)
    }

    /// What nobody took: dropping it closes it. The names and addresses, for the log.
    pub fn close_rest(&self) -> Vec<String> {
        let rest = std::mem::take(&mut *self.left.lock());
        rest.iter()
            .map(|named| match listens_on(&named.descriptor) {
                Some(address) => format!("{} ({address})", named.name),
                None => named.name.clone(),
            })
            .collect()
    }

    fn take_where(&self, fits: impl Fn(&Named) -> bool) -> Vec<Named> {
        let mut left = self.left.lock();
        let (taken, rest) = std::mem::take(&mut *left).into_iter().partition(fits);
        *left = rest;
        taken
    }
}

/// Listeners on `address` for `count` worker threads: what was inherited for it, else new ones.
///
/// # Errors
/// Where a new one can't be bound, or an inherited one can't be used.
pub fn listen(
    inherited: &Inherited,
    name: &str,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<TcpListener>, ListenError> {
    let old = inherited.take(name, address)?;
    if !old.is_empty() {
        return Ok(old);
    }
    Ok(if count <= 1 { vec![bind(address)?] } else { bind_shared(address, count)? })
}

/// Gives each of `workers` threads at least one of `listeners` to accept from, and none of them to nobody: a thread
/// may get several, and two may share one.
///
/// # Errors
/// Where a descriptor can't be duplicated.
pub fn spread(listeners: Vec<TcpListener>, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut all: Vec<Vec<TcpListener>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    let count = listeners.len();
    for (number, listener) in listeners.into_iter().enumerate() {
        let worker = number % all.len();
        all[worker].push(listener);
    }
    if count > 0 {
        for worker in count..all.len() {
            let shared = all[worker % count][0].try_clone()?;
            all[worker].push(shared);
        }
    }
    Ok(all)
}

/// What is handed to the next process.
#[derive(Debug, Default)]
pub struct HandOver {
    named: Vec<Named>,
}

impl HandOver {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a duplicate of `descriptor`: a listener, or anything else that the successor asks for by name. A name
    /// is of ASCII letters, digits, `-`, `_` and `.`; sockets of one address share one.
    ///
    /// # Errors
    /// Where the process has no descriptor left, or the name can't be told (`InvalidInput`).
    pub fn add(&mut self, name: &str, descriptor: &impl AsFd) -> io::Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 255 || !name.bytes().all(plain) {
            let message =
                format!("{name:?} can't be the name of a descriptor: only letters, digits, `-`, `_` and `.`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let descriptor = descriptor.as_fd().try_clone_to_owned()?;
        self.named.push(Named { name: name.to_owned(), descriptor });
        Ok(())
    }

    /// Lets `command` start with all of it. The duplicates live as long as `command`.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn give_to(self, command: &mut Command) -> io::Result<()> {
        let names: Vec<_> = self.named.iter().map(|named| named.name.as_str()).collect();
        command
            .env("LISTEN_FDS", self.named.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env(HANDED_BY, std::process::id().to_string())
            .env_remove("LISTEN_PID");
        let above = above(self.named.len());
        let mut sources = Vec::new();
        let mut occupied = Vec::new();
        for (named, place) in self.named.iter().zip(FIRST..) {
            // Beyond the places that are filled below, so that filling one overwrites no other's source.
            sources.push(rustix::io::fcntl_dupfd_cloexec(&named.descriptor, above)?);
            // Nothing that is opened while the child begins (its pipe to us, say) gets a place's number.
            occupied.push(rustix::io::fcntl_dupfd_cloexec(&named.descriptor, place)?);
        }
        let fill = move || {
            let _ = &occupied;
            for (source, place) in sources.iter().zip(FIRST..) {
                #[expect(unsafe_code, reason = "the child's table of descriptors is laid out by number")]
                // SAFETY: in the child alone, where the number is ours by the protocol; it is never dropped here.
                let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(place) });
                // Without close-on-exec: that is what the child gets.
                rustix::io::dup2(source, &mut place)?;
            }
            Ok(())
        };
        #[expect(unsafe_code, reason = "only between fork and exec can a child get descriptors by number")]
        // SAFETY: system calls only; no memory is taken and no lock.
        unsafe {
            command.pre_exec(fill);
        }
        Ok(())
    }
}

/// The first number above those of the protocol.
fn above(count: usize) -> RawFd {
    FIRST + RawFd::try_from(count).unwrap_or(RawFd::MAX - FIRST)
}

/// Where a listening TCP socket listens; `None` for anything else.
fn listens_on(descriptor: &OwnedFd) -> Option<SocketAddr> {
    if !sockopt::socket_acceptconn(descriptor).unwrap_or(false) {
        return None;
    }
    SocketAddr::try_from(rustix::net::getsockname(descriptor).ok()?).ok()
}

/// Makes a descriptor that this process was started with its own, at a number above those of the protocol.
fn own(descriptor: RawFd, count: usize) -> Result<OwnedFd, InheritError> {
    #[expect(unsafe_code, reason = "the number comes from the environment: there is no other way to name it")]
    // SAFETY: only borrowed for the call, which fails where it is not open.
    let given = unsafe { BorrowedFd::borrow_raw(descriptor) };
    // Closed in programs that we start.
    let copy = rustix::io::fcntl_dupfd_cloexec(given, above(count))
        .map_err(|error| InheritError::NotOpen { descriptor, source: error.into() })?;
    #[expect(unsafe_code, reason = "the protocol makes it ours")]
    // SAFETY: it is open, and by the protocol nobody else's: this runs once, before anything else opens a file.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::process::{Command, Stdio};

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// Not a test by itself: what the process that `sockets_reach_the_next_process` starts does. Accepts one
    /// connection on each inherited listener and says its name there.
    #[test]
    fn successor() {
        let Ok(address) = std::env::var("SERVE_TEST_ADDRESS") else { return };
        let address: SocketAddr = address.parse().unwrap();
        let inherited = Inherited::from_environment().unwrap();
        let by_name = inherited.take("web", LOOPBACK).unwrap();
        let second = inherited.take("web", LOOPBACK).unwrap();
        assert_eq!(second.len(), 1, "of the other port");
        assert_ne!(second[0].local_addr().unwrap(), address);
        assert_eq!(by_name.len(), 2, "both sockets of the port, by their name");
        for listener in &by_name {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
        assert!(inherited.take("web", address).unwrap().is_empty(), "taken once");
        let other = inherited.take("whatever", "127.0.0.1:1".parse().unwrap()).unwrap();
        assert!(other.is_empty());
        let lock = inherited.take_descriptor("lock").unwrap();
        let mut text = String::new();
        std::fs::File::from(lock).read_to_string(&mut text).unwrap();
        assert_eq!(text, "held");
        let rest = inherited.close_rest();
        assert!(rest.len() == 1 && rest[0].starts_with("api (127.0.0.1:"), "{rest:?}");
        let mut accepted = 0;
        for listener in by_name {
            // Connections wait in the queues already.
            listener.set_nonblocking(true).unwrap();
            while let Ok((mut stream, _)) = listener.accept() {
                io::Write::write_all(&mut stream, b"successor").unwrap();
                accepted += 1;
            }
        }
        assert_eq!(accepted, 20);
    }

    #[test]
    fn sockets_reach_the_next_process() {
        let web = bind_shared(LOOPBACK, 2).unwrap();
        let (other, api) = (bind(LOOPBACK).unwrap(), bind(LOOPBACK).unwrap());
        let address = web[0].local_addr().unwrap();
        let mut lock = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut lock, b"held").unwrap();
        io::Seek::rewind(&mut lock).unwrap();
        let mut hand_over = HandOver::new();
        for listener in &web {
            hand_over.add("web", listener).unwrap();
        }
        hand_over.add("web", &other).unwrap();
        hand_over.add("lock", &lock).unwrap();
        hand_over.add("api", &api).unwrap();
        assert!(hand_over.add("a:b", &api).is_err());
        // Nobody accepts them here: they are in the queues of both sockets.
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "inherit::tests::successor", "--nocapture"])
            .env("SERVE_TEST_ADDRESS", address.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        hand_over.give_to(&mut command).unwrap();
        let child = command.spawn().unwrap();
        drop((command, web, api));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for mut client in clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "successor");
        }
    }

    #[test]
    fn every_listener_has_a_worker_and_every_worker_a_listener() {
        for (listeners, workers) in [(1, 1), (1, 4), (4, 1), (3, 2), (2, 3), (4, 4)] {
            let all = bind_shared(LOOPBACK, listeners).unwrap();
            let spread = spread(all, workers).unwrap();
            assert_eq!(spread.len(), workers);
            assert!(spread.iter().all(|own| !own.is_empty()));
            assert_eq!(spread.iter().map(Vec::len).sum::<usize>(), listeners.max(workers));
        }
    }
}
