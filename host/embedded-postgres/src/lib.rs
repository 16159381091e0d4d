//! A private Postgres of the host's own, from native binaries, so that one command is enough.
//!
//! Always holds:
//! - One host a data directory: an flock that dies with its process. Whoever has it may judge what an
//!   earlier host left: a postmaster that runs on is adopted, a stale pid file is cleared away, a
//!   half-made cluster is removed.
//! - A cluster is there whole or not at all: it is made beside and renamed.
//! - The server listens on a unix socket only, in a folder that its own user alone may enter, and asks
//!   for a password that lies in the data directory for the host's user alone. So a workload's user
//!   reaches neither.
//! - As root, Postgres runs as `postgres` or `nobody`.
//! - A postmaster that dies is started again.
//!
//! Deliberately absent: getting binaries from the network (`./x` does), backups, upgrades between major
//! versions, tuning.

mod binaries;
mod cluster;
mod error;
mod postmaster;
mod server;
mod user;

pub use binaries::LOWEST_MAJOR;
pub use error::Error;
pub use server::{Durability, EmbeddedPostgres, Options};
