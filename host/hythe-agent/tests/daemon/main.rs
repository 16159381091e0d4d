//! The daemon as a program, with real processes and sockets.
//!
//! `cargo nextest run -p hythe-agent --features failpoints` runs all of it; without the feature the tests
//! in `faults` are left out.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod crashes;
mod exec;
#[cfg(feature = "failpoints")]
mod faults;
mod fence;
mod join;
mod lifecycle;
mod logs;
mod machine;
mod sources;
mod trust;
mod tunnels;
