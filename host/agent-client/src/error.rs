//! What can go wrong between the host and a daemon.

use std::time::Duration;

use agent_api::{Problem, error_code};
use http::StatusCode;

/// Why a request to a daemon has no answer that can be used.
///
/// `machine` is the machine's id and `address` where it was looked for, `host:port`; neither may be
/// shown to users of deployments, who know no machines.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No connection came about: nothing was sent.
    #[error(
        "the daemon of machine {machine} can't be reached at {address}: check that hythe-agent runs there and that the port is open"
    )]
    Connect {
        machine: String,
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// Something else answers at the machine's address, or the daemon's certificate was made anew.
    #[error(
        "machine {machine} at {address} shows the certificate {found}, but {expected} was registered: if its data folder was made anew, remove the machine and let it join again"
    )]
    PinMismatch { machine: String, address: String, expected: String, found: String },
    /// One side doesn't accept the other's proof or certificate.
    #[error("the host and the daemon of machine {machine} at {address} don't accept each other: {reason}")]
    Unauthenticated { machine: String, address: String, reason: String },
    /// The daemon's answer is not a success.
    #[error("the daemon refused ({status}, {}): {}", problem.code, problem.message)]
    Refused { status: StatusCode, problem: Problem },
    /// No answer in time; whether the request was carried out is not known.
    #[error("the daemon of machine {machine} at {address} gave no answer within {} ms ({what})", after.as_millis())]
    Timeout { machine: String, address: String, what: &'static str, after: Duration },
    /// The connection broke after the request was begun; whether it was carried out is not known.
    #[error(
        "the connection to the daemon of machine {machine} at {address} broke before its answer was whole"
    )]
    Interrupted {
        machine: String,
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came is not what the protocol says.
    #[error("the daemon of machine {machine} at {address} doesn't keep to the protocol: {reason}")]
    Protocol { machine: String, address: String, reason: String },
    /// The request can't be sent at all: its path or a header is malformed.
    #[error("the request to the daemon can't be sent: {reason}")]
    InvalidRequest { reason: String },
    /// The caller's own body failed while it was being sent.
    #[error("the request's body couldn't be read to its end")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AgentError {
    /// Whether the same request may well succeed later with nothing changed: the daemon restarts, the
    /// network is away, it is overloaded.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Interrupted { .. } => true,
            Self::Refused { status, problem } => {
                status.is_server_error() && problem.code != error_code::DISK_FULL
                    || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::PinMismatch { .. }
            | Self::Unauthenticated { .. }
            | Self::Protocol { .. }
            | Self::InvalidRequest { .. }
            | Self::Body(_) => false,
        }
    }

    /// Whether certainly no byte of the request reached the daemon.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::PinMismatch { .. } | Self::InvalidRequest { .. })
    }
}
