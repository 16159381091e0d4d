//! Ingress from outside: real sockets, bytes as they are.

#![expect(clippy::unwrap_used, reason = "tests")]

mod forwarding;
mod framing;
mod lifecycle;
mod origin;
mod pool;
mod routing;
mod streams;
mod upgrade;
mod wake;
mod world;
