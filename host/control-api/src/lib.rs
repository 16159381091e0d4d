//! The control API: REST `/v1` over the store, the archives and the adapters' control interfaces.
//!
//! Always holds:
//! - Every answer that is not a success is a problem (RFC 9457) with a stable code, whatever caused it.
//! - All but the host's health, the API's description and a machine's registration needs a token.
//! - A request that is refused has written nothing.
//! - A creating request that bears an `Idempotency-Key` is carried out to its end even where its
//!   client goes away, and at most once.
//! - Nothing polls: waits and streams wake up by the database's changes (with a slow look behind it, as
//!   a change's notice is a hint).
//!
//! Deliberately absent: deciding and doing (`planner`, `reconciler`: a request writes what is wanted),
//! SQL (`store`), listeners and TLS (`serve`), and everything about a certain runtime.

mod api;
mod auth;
mod boundary;
mod changes;
mod context;
mod extract;
mod failure;
mod idempotency;
mod paging;
mod routes;
mod serve;
mod stream;
mod view;

pub use api::{ControlApi, MetricsRenderer, PublicUrls, fan_out};
pub use boundary::{AdapterCatalog, ControlError, DeploymentControl, FrameStream, LineStream, SpecError};
