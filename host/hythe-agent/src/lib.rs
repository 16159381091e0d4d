//! `hythe-agent`, the daemon on a machine: runs workloads from uploaded sources under supervision, keeps
//! what they print, runs commands inside them, and carries connections to their local ports.
//!
//! Always holds: every change is fenced by the host's operation and on disk before it is done; at most
//! one run of a workload lives, whenever and however often the daemon is killed; what a workload leaves
//! behind ends with it; nothing but `/health` is answered to who has not proven to be the host.
//!
//! The pieces: [`server`] (TLS, HTTP/1.1, tunnels) → [`workload`] (fence, durable record, supervisor) →
//! [`shim`] (a small process that holds each run, so that the daemon may come and go). Linux only: it
//! leans on pidfds, subreapers, `/proc` and, where there are, cgroups.
//!
//! Deliberately absent: what a deployment is, routing, retries of the host's calls, any knowledge of
//! other machines. The daemon calls nobody, except once, to join.

mod archive;
mod cgroup;
mod claims;
pub mod cli;
mod clock;
mod context;
mod daemon;
mod data;
mod durable;
mod execution;
mod facts;
mod faults;
mod join;
mod log;
mod ports;
mod problem;
mod process;
mod readable;
mod server;
mod shim;
mod source;
mod users;
mod watch;
mod workload;

pub use daemon::{Config, Daemon, OnExit};
pub use users::WorkloadUser;
