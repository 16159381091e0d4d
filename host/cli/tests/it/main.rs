//! The commands against a host that misbehaves.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod deploy;
mod fake;
mod shapes;
mod streams;
mod words;
