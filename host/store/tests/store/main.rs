//! The store against a real Postgres; each test has a database of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

mod changes;
mod deployments;
mod domains;
mod idle;
mod invariants;
mod keys;
mod machines;
mod projects;
mod schema;
mod support;
mod tokens;
