//! Between the database's numbers and texts and the domain's.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::error::StoreError;

/// A counter of the database, never negative by its CHECK.
pub(crate) fn count(value: i64) -> u64 {
    value.unsigned_abs()
}

/// A counter for the database. None that is counted reaches 2^63.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A text that a CHECK or a type has let in.
pub(crate) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(StoreError::unreadable)
}

/// For `make_interval(secs => …)`.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

pub(crate) fn port(value: i32) -> Result<u16, StoreError> {
    u16::try_from(value).map_err(StoreError::unreadable)
}

/// As many rows as one answer may have.
pub(crate) fn bounded(limit: u32) -> i64 {
    i64::from(limit.clamp(1, 1000))
}
