//! A guest's library: the whole adapter for runtimes that drive a `hythe-agent`. What differs between
//! them is how the daemon is reached, [`Runtime`]; the rest is here once.
//!
//! Always holds: the daemon's word is what is reported. A daemon that can't be reached is an error
//! (`unavailable`), never `stopped`: unknown is not gone. Nothing is kept but the locator, which only says
//! that a start was begun and by which version of this crate's state.
//!
//! Deliberately absent: identity and fencing. The host stamps every request with deployment, generation,
//! incarnation and operation.

mod adapter;
pub mod bindings;
mod daemon;
mod lifecycle;
mod spec;

pub use adapter::{Driver, Runtime};
pub use bindings::export;
pub use bindings::hythe::deployment::host;
pub use bindings::hythe::deployment::types;
