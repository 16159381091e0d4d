//! What the control API needs of the rest of the host. The program implements it.

use std::pin::Pin;

use agent_api::frame::Frame;
use agent_api::{ExecRequest, LogLine, LogQuery};
use api_types::HealthReport;
use async_trait::async_trait;
use futures_util::Stream;
use model::{DeploymentId, ExecutionId};
use serde_json::Value;

/// Output of an execution; ends after one [`Frame::Exit`], or was cut.
pub type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame, ControlError>> + Send>>;

/// Lines of a log. With `follow` it ends when the deployment or the reader does.
pub type LineStream = Pin<Box<dyn Stream<Item = Result<LogLine, ControlError>> + Send>>;

/// Talks to running deployments through their adapters' optional interfaces.
///
/// Dropping a returned stream lets go of it and ends no command.
#[async_trait]
pub trait DeploymentControl: Send + Sync {
    /// Runs a command, or attaches from the beginning to the execution of this id where there is one: a
    /// command is never run twice.
    async fn exec(
        &self,
        deployment: DeploymentId,
        execution: ExecutionId,
        request: ExecRequest,
    ) -> Result<FrameStream, ControlError>;

    /// Output of an execution from this many bytes of its frames' encoding on ([`agent_api::frame`]).
    /// [`ControlError::NotFound`] where it is not (any more) known.
    async fn attach(
        &self,
        deployment: DeploymentId,
        execution: ExecutionId,
        cursor: u64,
    ) -> Result<FrameStream, ControlError>;

    /// What the deployment printed. Also of a stopped one, where its runtime keeps it.
    async fn logs(&self, deployment: DeploymentId, query: LogQuery) -> Result<LineStream, ControlError>;

    /// Asks now, by the runtime's own means or by a probe.
    async fn check_health(&self, deployment: DeploymentId) -> Result<HealthReport, ControlError>;
}

/// Why a deployment can't be talked to. The texts are shown to clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No such deployment or execution.
    #[error("there is no such deployment or execution (any more)")]
    NotFound,
    /// It must run for this. Says what it is instead, as a sentence.
    #[error("{0}")]
    NotRunning(String),
    /// Its adapter does not export the interface.
    #[error(
        "deployments of the runtime {runtime:?} can't do this: its adapter does not export `{interface}`"
    )]
    Unsupported { runtime: String, interface: String },
    /// Passing: try again.
    #[error("{0}")]
    Unavailable(String),
    /// The request makes no sense to the runtime.
    #[error("{0}")]
    Invalid(String),
    /// A fault of the host or the adapter. The text is logged and not shown.
    #[error("{0}")]
    Internal(String),
}

/// Knows the adapters that the host has loaded.
pub trait AdapterCatalog: Send + Sync {
    /// Checks a specification against the schema of the adapter that the runtime type names.
    ///
    /// # Errors
    /// See [`SpecError`].
    fn validate_spec(&self, runtime_type: &str, spec: &Value) -> Result<(), SpecError>;
}

/// Why a specification is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("no adapter has this name")]
    UnknownRuntime { known: Vec<String> },
    /// Each with its JSON pointer into the specification (`/command/0`; empty: the whole) and a
    /// sentence. Never empty.
    #[error("the specification breaks its adapter's schema")]
    Violations(Vec<(String, String)>),
}
