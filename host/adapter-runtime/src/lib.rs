//! Runs adapters: WebAssembly components that implement `hythe:deployment/project-deployment@0.1`.
//!
//! The only crate that knows wasmtime; what it gives and takes are plain Rust types.
//!
//! Always holds:
//! - A call runs on an instance of its own (but decisions about requests, see [`Router`]) and ends within
//!   its time, whatever the component does. A
//!   trap, an endless loop, a memory bomb or a flood of host calls ends that one call with a
//!   [`CallError`] that names adapter, function and cause; nothing else notices.
//! - An adapter reaches what the [`DeploymentHost`] of its call reaches, and nothing more: no files, no
//!   environment, no sockets. What it prints goes to its log.
//! - No runtime has a name here: what differs between adapters is in them and in their grants.
//! - Only files that this crate wrote, and whose digest it has checked, are loaded as machine code.
//!
//! Deliberately absent: what the calls are for and when they are repeated (`planner`, `reconciler`), where
//! the host's answers come from (the implementor of [`DeploymentHost`]).

mod adapter;
mod compile;
mod convert;
mod engine;
mod error;
mod host;
mod limits;
mod routing;
mod runtime;
mod schema;
mod state;
mod stdio;
mod types;
mod wasi;
mod world;

pub use adapter::{Adapter, Instances};
pub use compile::{CompilerCommand, run_compiler};
pub use error::{
    CallCause, CallError, DeploymentError, HostError, LoadCause, LoadError, RouteError, RuntimeError,
};
pub use host::{DeploymentHost, DeploymentView, Level, MachineRef, Requirements};
pub use limits::{Limits, RoutingLimits, RuntimeConfig};
pub use routing::{
    Decision, Forwarding, HeaderRef, Reply, RequestHead, Router, RoutingComponent, RoutingEvent, RoutingTable,
};
pub use runtime::AdapterRuntime;
pub use schema::{Descriptor, SpecViolation};
pub use types::{
    Attachment, Body, Command, ComponentPlace, Execution, Exit, Extensions, Fetcher, Framing, Header, Health,
    LogLine, LogSource, Output, Place, Request, Response, Status, Tail, Transport, Upstream,
};
