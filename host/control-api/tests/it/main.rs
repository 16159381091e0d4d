//! The control API over a real Postgres, with a fake of what runs deployments.

#![expect(clippy::unwrap_used, reason = "tests")]

mod deployments;
mod description;
mod events;
mod exec;
mod fakes;
mod idempotency;
mod lists;
mod machines;
mod problems;
mod sources;
mod waiting;
mod world;
