//! Decisions about requests: `http-routing`, asked on the request's own thread.
//!
//! Always holds:
//! - A decision is one synchronous call on an instance that its worker thread owns ([`Router`]); it never
//!   spans an await. The next request finds the instance warm.
//! - A trap or a call that takes too long ends its instance. The request is asked about once more, on a
//!   fresh one. Requests that fail both times, so many in a row as
//!   [`RoutingLimits::failures`](crate::RoutingLimits::failures) says and with no good decision between them
//!   on any thread, switch the adapter off for [`RoutingLimits::off`](crate::RoutingLimits::off); then one
//!   request is let try.
//! - Another version of an adapter takes the place of the present one at each thread's next request, and
//!   nothing of the old one stays but its code, until the version after that.
//!
//! What a time-out can't interrupt: it is noticed where the guest begins a function or goes round a loop, so
//! one instruction that works on much memory (`memory.fill`, `memory.copy`) runs to its end: some
//! milliseconds for all of 16 MiB. The host's own part of a call (copying the head in and the decision out,
//! WASI) is not interrupted either, and is bounded by bytes instead: nothing in it waits.
//!
//! Deliberately absent: HTTP. Heads and decisions are texts here; what may be set on a request is ingress's
//! to say.

mod decision;
mod instance;
mod router;
mod state;
mod table;
mod ticker;
mod wasi;

pub use decision::{Decision, Forwarding, HeaderRef, Reply, RequestHead};
pub use instance::RoutingComponent;
pub(crate) use instance::RoutingEngine;
pub use router::Router;
pub use table::{RoutingEvent, RoutingTable};
