//! What tests share: databases of their own, real processes, whole hosts.
//!
//! Always holds: a test's servers listen on free ports and end with it. Waiting is for a condition, with a
//! bound that only a hang reaches.

pub mod database;
pub mod host;
pub mod process;
