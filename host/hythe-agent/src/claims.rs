//! What daemons on one machine must not both take: local ports and users.
//!
//! A claim is an abstract unix socket: it belongs to the network namespace, as ports do, needs no file
//! or right, and is gone with the daemon. What still runs without a daemon is seen by other means.

use std::collections::HashMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use parking_lot::Mutex;

/// What this daemon has claimed.
#[derive(Debug)]
pub struct Claims {
    kind: &'static str,
    held: Mutex<HashMap<u32, UnixDatagram>>,
}

impl Claims {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, held: Mutex::default() }
    }

    /// False where this or another daemon has it.
    pub fn claim(&self, number: u32) -> bool {
        let mut held = self.held.lock();
        if held.contains_key(&number) {
            return false;
        }
        let name = format!("hythe-agent-{}-{number}", self.kind);
        let socket =
            SocketAddr::from_abstract_name(name).and_then(|address| UnixDatagram::bind_addr(&address));
        socket.is_ok_and(|socket| held.insert(number, socket).is_none())
    }

    /// Gives it back.
    pub fn release(&self, number: u32) {
        self.held.lock().remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let (one, other) = (Claims::new("test"), Claims::new("test"));
        assert!(one.claim(7));
        assert!(!one.claim(7) && !other.claim(7));
        one.release(7);
        assert!(other.claim(7));
    }
}
