//! Listening sockets and what every server needs around them: sharing a port between worker threads,
//! accepting without ever giving up, threads with a runtime of their own, and draining.
//!
//! Always holds: a port that another program has is an error that says so, even though sockets here are
//! shared by `SO_REUSEPORT`; an accept loop survives running out of file descriptors.
//!
//! [`tls`] and [`proxy_protocol`] come in between [`accept`] and the connection; [`inherit`] brings sockets from the process
//! before this one.
//!
//! Deliberately absent: HTTP.

mod accept;
mod bind;
mod drain;
pub mod inherit;
pub mod proxy_protocol;
pub mod tls;
mod worker;

pub use accept::accept;
pub use bind::{BindError, bind, bind_shared};
pub use drain::{Drain, DrainGuard, Draining};
pub use worker::{WorkerError, WorkerThread};
