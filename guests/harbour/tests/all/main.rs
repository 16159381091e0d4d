//! The real program over real connections: every part of it that a browser or a client would use, and
//! its end.

#![expect(clippy::unwrap_used, reason = "tests")]

mod client;
mod program;

mod api;
mod lifecycle;
mod live;
mod pages;
mod streams;
