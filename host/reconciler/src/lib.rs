//! Carries out what the planner decides, and calls adapters on behalf of everything else.
//!
//! Always holds:
//! - A side effect of an operation happens under a lease on its deployment, checked before each one by
//!   a clock that runs on while the process is stopped; what is written is guarded by the lease in the
//!   database, what reaches a daemon by the fence.
//! - An operation's number is durable before its first side effect, so whoever continues it uses the
//!   same one.
//! - What an adapter does not know changes nothing: an error or `unknown` is written down as an error,
//!   never as a state.
//!
//! Deliberately absent: what to do next (`planner`), SQL (`store`), guests (`adapter-runtime`), users'
//! bytes (`ingress`).

mod adapters;
mod call_host;
mod calls;
mod executor;
mod lease_guard;
mod machines;
mod outcome;
mod run;
mod upstream;

pub use adapters::{Adapters, LoadedAdapter};
pub use calls::{CallsError, DeploymentCalls, ExecutionStream, LogStream, ServiceFetcher};
pub use executor::Settings;
pub use machines::Machines;
pub use run::Reconciler;
pub use upstream::ResolvedUpstream;
