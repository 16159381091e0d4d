//! Logs and metrics, set up once by a program.
//!
//! Logs go to stderr: stdout belongs to what a command answers. Metrics are pulled as text.
//!
//! Deliberately absent: traces (OTLP comes with its own issue), and the metrics themselves: each
//! module owns its own and registers them.

mod logs;
mod metrics;

pub use logs::{InitError, LogFormat, init};
pub use metrics::{METRICS_CONTENT_TYPE, Metrics};
