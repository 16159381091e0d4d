//! The data plane: from a listening socket to a deployment, by host name.
//!
//! What it knows of the world comes in through four doors, all given by the program that starts it:
//! [`Routes`] (who is where, kept current from outside), [`FetcherSource`] (where a running deployment
//! takes its requests), [`Waker`] (how a stopped one is started) and [`IngressConfig`].
//!
//! Always holds:
//! - A request has one meaning. What can be read in two ways is refused, or made canonical before anything
//!   looks at it; routing and access decisions see the same canonical host.
//! - Worker threads only move bytes. Whatever may wait on something other than a socket (a lease, a start)
//!   runs on the runtime that called [`Ingress::bind`].
//! - A connection to an upstream belongs to one deployment, incarnation and service, never to an address.
//! - A request is sent a second time only where no byte of it reached an upstream, or where it is safe by
//!   its method and no byte of an answer came.
//! - A stream that has begun lives on, on the incarnation that it began on, through any change of routes.
//!
//! Deliberately absent: the store, adapters, Wasm; TLS and HTTP/2 (they come in beside
//! [`Endpoint`] and the connection task, and change nothing of the forwarding); access control.

mod activity;
mod answer;
mod body;
mod config;
mod cookie;
mod exchange;
mod finish;
mod flight;
mod forward;
mod headers;
mod host;
mod ids;
mod ingress;
mod lease;
mod metrics;
mod pool;
mod relay;
mod relay_task;
mod request;
mod resolve;
mod route;
mod slot;
mod table;
mod upstream;
mod wait;
mod wake;
mod watch;
mod worker;

pub use activity::ActivityReport;
pub use config::{IngressConfig, IngressError, TrustedProxies};
pub use ingress::Ingress;
pub use lease::{Dial, Endpoint, FetchError, FetcherSource, Lease, Stream};
pub use route::{Alias, AliasTarget, DeploymentRoute, OldMachine, Routes};
pub use wake::{WakeError, Waker};
