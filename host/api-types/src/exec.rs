//! Commands run inside a deployment, and what it prints.

use std::collections::BTreeMap;

use agent_api::Exit;
use chrono::{DateTime, Utc};
use model::ExecutionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;
use crate::schema;

/// Body of `POST /v1/deployments/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments: no shell.
    #[schema(example = json!(["ls", "-l"]), min_items = 1)]
    pub argv: Vec<String>,
    /// Relative to the deployment's source folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Beside the deployment's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Milliseconds. Default: 120000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub timeout_ms: Option<u64>,
    /// The caller's own choice of id: repeating the call attaches to the same execution and never runs the
    /// command a second time. Default: a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "exec_01h455vb4pex5vsknk084sn02q")]
    pub execution_id: Option<ExecutionId>,
}

/// How bytes stand in a JSON string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Encoding {
    /// As they are.
    #[default]
    Utf8,
    /// Standard alphabet with padding (RFC 4648, section 4), where the bytes are not UTF-8.
    Base64,
}

/// A command's end and all that it printed. An exit code other than 0 is an answer, not a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecResult {
    #[schema(value_type = String, example = "exec_01h455vb4pex5vsknk084sn02q")]
    pub execution_id: ExecutionId,
    #[schema(value_type = schema::Exit)]
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
    /// Of both `stdout` and `stderr`: `base64` where one of them is not UTF-8.
    pub encoding: Encoding,
    /// More was printed than one JSON answer holds: `GET …/executions/{executionId}` has all of it.
    pub truncated: bool,
}

/// A line of the streamed answer. The one `exit` is the authoritative end; a stream that ends without
/// `exit` or `error` was cut: attach again at the last `cursor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ExecFrame {
    /// Always the first.
    Started {
        #[schema(value_type = String)]
        execution_id: ExecutionId,
    },
    Stdout {
        data: String,
        encoding: Encoding,
        /// Attach with this to get what follows.
        cursor: u64,
    },
    Stderr {
        data: String,
        encoding: Encoding,
        /// Attach with this to get what follows.
        cursor: u64,
    },
    Exit {
        #[schema(value_type = schema::Exit)]
        exit: Exit,
    },
    /// The stream broke; the command may still run.
    Error { problem: Problem },
}

/// Where to attach to an execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttachQuery {
    /// `cursor` of the last frame that was read. Default: 0, from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// Which lines of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// The last so many of what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 100000, default = 100)]
    pub lines: Option<u32>,
    /// Keep the stream open and send what comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(default = false)]
    pub follow: Option<bool>,
    /// Only lines printed at or after this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_documented_form() {
        let id = ExecutionId::new();
        let check = |frame: ExecFrame, expected: serde_json::Value| {
            assert_eq!(serde_json::to_value(&frame).unwrap(), expected);
            assert_eq!(serde_json::from_value::<ExecFrame>(expected).unwrap(), frame);
        };
        check(
            ExecFrame::Started { execution_id: id },
            serde_json::json!({"type": "started", "executionId": id}),
        );
        check(
            ExecFrame::Exit { exit: Exit::Code(3) },
            serde_json::json!({"type": "exit", "exit": {"kind": "code", "value": 3}}),
        );
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let error = serde_json::from_str::<ExecRequest>(r#"{"argv": ["ls"], "timeout": 5}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `timeout`"), "{error}");
    }
}
