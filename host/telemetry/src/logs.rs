//! Where log lines go, and in what form.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Short lines for a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = InitError;

    fn from_str(text: &str) -> Result<Self, InitError> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(InitError::Format(text.to_owned())),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{0:?} is no log format: expected `human` or `json`")]
    Format(String),
    #[error("the log filter {filter:?} can't be read: write it as `info` or `info,ingress=debug`")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging was set up before in this process")]
    Twice,
}

/// Sends log lines of this process to stderr. `filter` is as in `RUST_LOG`: `info`,
/// `info,ingress::access=debug`.
///
/// # Errors
/// A filter that can't be read; a second call.
pub fn init(format: LogFormat, filter: &str) -> Result<(), InitError> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| InitError::Filter { filter: filter.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Human => registry
            .with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(true).compact())
            .try_init(),
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()
        }
    }
    .map_err(|_| InitError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_words_are_named() {
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "\"xml\" is no log format: expected `human` or `json`"
        );
        let error = init(LogFormat::Human, "ingress=loud").unwrap_err();
        assert!(error.to_string().contains("\"ingress=loud\" can't be read"), "{error}");
    }
}
