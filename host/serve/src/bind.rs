//! Taking a port, and saying clearly why not.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel finishes for us before we accept them.
const BACKLOG: i32 = 4096;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is taken by another program: stop it (`ss -ltnp 'sport = :{}'` names it) or choose another port", address.port())]
    Taken { address: SocketAddr },
    #[error(
        "this user may not listen on {address}: take a port from 1024 on, or run with CAP_NET_BIND_SERVICE"
    )]
    NotAllowed { address: SocketAddr },
    #[error("{address} is no address of this machine: choose one that `ip address` shows, or 0.0.0.0")]
    NotLocal { address: SocketAddr },
    #[error("can't listen on {address}")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { address },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            _ => Self::Other { address, source },
        }
    }

    /// The address that was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Taken { address }
            | Self::NotAllowed { address }
            | Self::NotLocal { address }
            | Self::Other { address, .. } => *address,
        }
    }
}

/// One listener. Non-blocking; what it accepts has `TCP_NODELAY` (inherited on Linux).
///
/// # Errors
/// See [`BindError`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address, false).map_err(|source| BindError::new(address, source))
}

/// `count` listeners on one address, for as many worker threads. On Linux each has a queue of its own
/// (`SO_REUSEPORT`) and the kernel spreads connections; elsewhere they share one queue. Port 0 takes one
/// free port for all.
///
/// # Errors
/// See [`BindError`]. Another program on the port is an error even where it shares its port too.
pub fn bind_shared(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let error = |source| BindError::new(address, source);
    // Sockets that share a port would join another program of the same user that does so: one that does
    // not share shows whether the port is free.
    let alone = listen(address, false).map_err(error)?;
    if count <= 1 {
        return Ok(vec![alone]);
    }
    if !cfg!(target_os = "linux") {
        let mut listeners = vec![alone];
        while listeners.len() < count {
            listeners.push(listeners[0].try_clone().map_err(error)?);
        }
        return Ok(listeners);
    }
    let address = alone.local_addr().map_err(error)?;
    drop(alone);
    (0..count).map(|_| listen(address, true)).collect::<io::Result<_>>().map_err(error)
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `::` does not silently take IPv4 too: both can be listed.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    if shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = shared;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_what_to_do() {
        let first = bind_shared(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(address, first[1].local_addr().unwrap());
        for count in [1, 2] {
            let message = bind_shared(address, count).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{address} is taken by another program: stop it")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        assert!(matches!(bind(address), Err(BindError::NotLocal { .. })));
    }
}
