//! End to end: the real programs, real components, a real database.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod faults;
mod idle;
mod lifecycle;
mod swap;
mod things;
mod two_hosts;
mod worlds;
