//! The only crate that talks to a daemon (`hythe-agent`).
//!
//! Always holds: nothing of a request leaves before the daemon has shown the certificate that was
//! pinned when the machine was registered; the first request of each connection bears the proof that
//! the host knows the machine's shared key, and its answer is believed only with the daemon's own
//! proof ([`handshake`]). A request is sent a second time only where no byte of the first reached the
//! daemon.
//!
//! Deliberately absent: what the requests mean (`agent-api` and the adapters), any state of machines
//! or deployments, and retries of what the daemon refused.

mod client;
mod connection;
mod error;
pub mod handshake;
mod identity;
mod tunnel;

pub use client::{AgentClient, AgentEndpoint, Body, Request, Response, ResponseBody};
pub use error::AgentError;
pub use identity::{Certificate, HostIdentity, IdentityError, prepare_certificate};
pub use tunnel::Tunnel;
