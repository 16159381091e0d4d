//! What the daemon answers when it doesn't do what it was asked.

use std::io;

use agent_api::{Problem, error_code};
use http::StatusCode;

use crate::archive::is_disk_full;
use crate::ports::PortError;
use crate::source::SourceError;

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error_code::INVALID, message)
    }

    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error_code::UNAUTHENTICATED, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error_code::NOT_FOUND, message)
    }

    pub fn superseded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error_code::SUPERSEDED, message)
    }

    pub fn not_running(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error_code::NOT_RUNNING, message)
    }

    pub fn source_missing(digest: &str) -> Self {
        let message = format!("the source {digest} is not on this machine: upload it, then try again");
        Self::new(StatusCode::FAILED_DEPENDENCY, error_code::SOURCE_MISSING, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error_code::UNAVAILABLE, message)
    }

    pub fn problem(&self) -> Problem {
        Problem { code: self.code.to_owned(), message: self.message.clone() }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if is_disk_full(&error) {
            let message = "the machine's disk is full: free space where the daemon keeps its data";
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, error_code::DISK_FULL, message);
        }
        tracing::error!(error = %error, "a request failed on this machine");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error_code::INTERNAL, error.to_string())
    }
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            SourceError::InvalidDigest(_) | SourceError::BrokenOff => {
                (StatusCode::BAD_REQUEST, error_code::INVALID)
            }
            SourceError::DigestMismatch { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, error_code::DIGEST_MISMATCH)
            }
            SourceError::TooLarge | SourceError::Archive(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, error_code::INVALID_ARCHIVE)
            }
            SourceError::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, error_code::DISK_FULL),
            SourceError::Io(error) => return error.into(),
        };
        Self::new(status, code, message)
    }
}

impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Exhausted => Self::unavailable(error.to_string()),
            PortError::Note(error) => error.into(),
        }
    }
}
