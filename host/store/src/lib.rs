//! The store: the only place that knows SQL.
//!
//! What is wanted, what was seen and who holds what lives in Postgres (≥ 15); the schema is
//! `migrations/`. Every query is checked at compile time and named `noun_verb`, one file a resource.
//!
//! Always holds:
//! - Time is the database's clock, so hosts whose clocks differ agree on who is late.
//! - A write by a lease's holder is guarded by the lease's epoch; a change of what is wanted counts the
//!   generation up; the tables' CHECKs repeat the rules.
//! - Rows are locked in one order: project, deployments, machines; then the events are written, and
//!   nothing after them (their numbers are given out under a lock that lasts until the commit).
//! - Secrets are kept as SHA-256 (tokens) or encrypted (machines' keys), never in clear.
//!
//! Deliberately absent: deciding what to do (`planner`), doing it (`reconciler`), and any knowledge of
//! runtimes: `spec` and `locator` are opaque here.

mod adapter;
mod convert;
mod deployment;
mod domain;
mod error;
mod event;
mod hostname;
mod idempotency;
mod listen;
mod machine;
mod page;
mod project;
mod route;
mod secret;
mod source;
mod store;
mod token;
mod types;

pub use error::StoreError;
pub use listen::{Change, ChangeListener, Channel};
pub use page::{Cursor, CursorError, MAX_PAGE, Page, PageRequest};
pub use secret::{MASTER_KEY_FILE, MASTER_KEY_VARIABLE, MasterKey, MasterKeyError, SharedKey};
pub use store::{QueryObserver, Store, StoreOptions};
pub use types::{
    Adapter, AdapterRow, CurrentOperation, Deployment, DeploymentActivity, DeploymentFilter, Event,
    EventFilter, GrantRow, Hostname, HostnameTarget, Idempotency, IdleSweep, Lease, Leased, Machine,
    MachineConnection, MachineFilter, NewDeployment, NewEvent, NewMachine, NewRegistration, Observation,
    OldMachine, Project, ProjectDomain, Requirements, RouteRow, Source, TokenInfo,
};
