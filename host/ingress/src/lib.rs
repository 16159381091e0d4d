//! The data plane: from a listening socket to a deployment, by host name.
//!
//! What it knows of the world comes in through five doors, all given by the program that starts it:
//! [`Routes`] (who is where, kept current from outside), [`FetcherSource`] (where a running deployment
//! takes its requests), [`Waker`] (how a stopped one is started), [`RouterFactory`] (who decides about
//! requests whose lease says so) and [`IngressConfig`].
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
//! HTTP/2 is read into the form of HTTP/1.1 before any rule is asked, and answered stream by stream; apps
//! speak HTTP/1.1 or h2c, whatever their clients do.
//!
//! Deliberately absent: the store, adapters, Wasm; certificates (`serve::tls` has them); HTTP/3; access control.

mod accepted;
mod activity;
mod answer;
mod body;
mod client_io;
mod config;
mod cookie;
mod ejection;
mod exchange;
mod finish;
mod flight;
mod forward;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod h2_server;
mod h2_stream;
mod h2_upstream;
mod headers;
mod host;
mod ids;
mod inflow;
mod ingress;
mod interim;
mod lease;
mod metrics;
mod pool;
mod real;
mod relay;
mod relay_task;
mod request;
mod resolve;
mod route;
mod router;
mod slot;
mod table;
mod target;
mod trace;
mod upstream;
mod wait;
mod wake;
mod watch;
mod websocket;
mod worker;

pub use activity::ActivityReport;
pub use config::{IngressConfig, IngressError, Listen, TrustedProxies};
pub use ingress::Ingress;
pub use lease::{Dial, Endpoint, FetchError, FetcherSource, Lease, Stream};
pub use route::{Alias, AliasTarget, DeploymentRoute, OldMachine, Routes};
pub use router::{Decision, Forward, RequestHead, RequestRouter, RouteFailure, Routed, RouterFactory};
pub use wake::{WakeError, Waker};
