//! Real components on a real runtime, against hosts in memory.

#![expect(clippy::unwrap_used, reason = "tests, and their helpers")]

mod compile;
mod daemon;
mod fake_daemon;
mod fake_host;
mod faults;
mod load;
mod routing;
mod steps;
mod things;
