//! Ingress from outside: real sockets, bytes as they are.

#![expect(clippy::unwrap_used, reason = "tests")]

mod decisions;
mod forwarding;
mod framing;
mod h2;
mod interim;
mod lifecycle;
mod limits;
mod origin;
mod pool;
mod routing;
mod streams;
mod tls;
mod upgrade;
mod wake;
mod world;
