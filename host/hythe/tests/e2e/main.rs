//! End to end: the real programs, real components, a real database.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod deciding;
mod endurance;
mod faults;
mod idle;
mod lifecycle;
mod swap;
mod things;
mod tls;
mod two_hosts;
mod upgrade;
mod worlds;
