//! Waiting for many sockets at once, for the programs here that must cost next to nothing.
//!
//! A thin layer over epoll(7), level-triggered; what is watched is known by a number that the caller chooses. The
//! number of a closed socket must not be given to another one before the next wait: what is ready now may still hold
//! an event of the old one.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use socket2::{Domain, Socket, Type};

/// What a socket is ready for; `HUP` and `ERR` come unasked.
pub type Ready = EventFlags;

/// One epoll instance.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// # Errors
    /// As epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(1024) })
    }

    /// Watches `source`, under `key`.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn add(&self, source: impl AsFd, key: usize, wanted: Ready) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(key as u64), wanted)?)
    }

    /// Changes what is wanted of a watched `source`.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn modify(&self, source: impl AsFd, key: usize, wanted: Ready) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(key as u64), wanted)?)
    }

    /// Waits until something is ready, or for `timeout` (to the millisecond), and puts it into `ready`.
    ///
    /// # Errors
    /// As epoll_wait(2); an interruption is none.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<(usize, Ready)>) -> io::Result<()> {
        let timeout = timeout.map(timespec);
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.iter().map(|event| (event.data.u64() as usize, event.flags)));
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: i64::from(time.subsec_nanos()) }
}

/// A clock that makes itself ready at a time, to the microsecond where epoll's own is to the millisecond.
pub struct Timer(OwnedFd);

impl Timer {
    /// # Errors
    /// As timerfd_create(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?))
    }

    /// Is ready in `time` from now, once; forgets what was set before.
    ///
    /// # Errors
    /// As timerfd_settime(2).
    pub fn set(&self, time: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(time.max(Duration::from_nanos(1))),
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Listens on a port of 127.0.0.1 (0: a free one) with a queue long enough for a burst of connections.
///
/// # Errors
/// Where the port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// How many connections leave from one source address: well below the kernel's range of ports.
const CONNECTIONS_BY_SOURCE: usize = 8_000;

/// Connects to `address`; connection `number` picks the source address, so that ports do not run out.
///
/// # Errors
/// As connect(2).
pub fn connect(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = 2 + u8::try_from(number / CONNECTIONS_BY_SOURCE % 200).unwrap_or_default();
    socket.bind(&SocketAddr::from(([127, 0, 0, source], 0)).into())?;
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether an error only says that there is nothing to do now.
pub fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
