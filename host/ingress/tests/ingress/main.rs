//! Ingress from outside: real sockets, bytes as they are.

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
