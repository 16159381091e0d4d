//! Commands inside a deployment.

use agent_api::frame::{Frame, MAX_PAYLOAD};
use api_types::{AttachQuery, Encoding, ExecFrame, ExecRequest, ExecResult, Exit, NDJSON, code};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Stream, StreamExt, stream};
use model::ExecutionId;
use tokio_util::sync::CancellationToken;

use super::{Answer, Api, deployments};
use crate::boundary::FrameStream;
use crate::context::Context;
use crate::extract::{JsonBody, Params, Segments, asks_for, id};
use crate::failure::Failure;
use crate::stream::{Broken, ndjson};

/// Bytes of each output that one JSON answer holds.
const MAX_OUTPUT: usize = 4 << 20;
/// Bytes of a record before its payload.
const RECORD_HEADER: usize = 5;

/// Run a command inside a deployment. With `accept: application/x-ndjson` its output is streamed, an
/// `ExecFrame` a line; otherwise the answer comes at its end. An exit code other than 0 is no problem.
#[utoipa::path(
    post, path = "/v1/deployments/{deployment}/exec", operation_id = "exec", tag = "deployments",
    request_body = ExecRequest,
    params(("deployment" = String, Path, description = "`dep_…`")),
    responses(
        (status = 200, description = "It ended, or it streams.", content(
            (ExecResult = "application/json"),
            (ExecFrame = "application/x-ndjson"),
        )),
    ),
)]
pub(super) async fn exec(
    State(api): Api,
    context: Context,
    headers: HeaderMap,
    Segments(deployment): Segments<String>,
    JsonBody { value: request, .. }: JsonBody<ExecRequest>,
) -> Answer {
    let row = deployments::find(&api, &deployment).await?;
    if request.argv.first().is_none_or(String::is_empty) {
        let message = "name a program: argv must have at least one item, and the first must not be empty";
        return Err(Failure::field(code::VALIDATION_FAILED, "/argv", message));
    }
    if request.timeout_ms == Some(0) {
        return Err(Failure::field(
            code::VALIDATION_FAILED,
            "/timeoutMs",
            "0 leaves no time: give at least 1",
        ));
    }
    let execution = request.execution_id.unwrap_or_else(ExecutionId::new);
    let ExecRequest { argv, cwd, env, timeout_ms, execution_id: _ } = request;
    let request = agent_api::ExecRequest { argv, cwd, env, timeout_ms };
    let frames = api.control.exec(row.id, execution, request).await?;
    if asks_for(&headers, NDJSON) {
        Ok(streamed(frames, execution, 0, context, api.shutdown.clone()))
    } else {
        Ok(Json(collect(frames, execution, &api.shutdown).await?).into_response())
    }
}

/// Attach to an execution: what it printed behind a cursor, then what it prints. An `ExecFrame` a line.
#[utoipa::path(
    get, path = "/v1/deployments/{deployment}/executions/{execution}", operation_id = "attachToExecution",
    tag = "deployments",
    params(
        ("deployment" = String, Path, description = "`dep_…`"),
        ("execution" = String, Path, description = "`exec_…`"),
        AttachQuery,
    ),
    responses((status = 200, description = "It streams.", content((ExecFrame = "application/x-ndjson")))),
)]
pub(super) async fn attach(
    State(api): Api,
    context: Context,
    Segments((deployment, execution)): Segments<(String, String)>,
    Params(query): Params<AttachQuery>,
) -> Answer {
    let execution: ExecutionId = id(&execution)?;
    let row = deployments::find(&api, &deployment).await?;
    let cursor = query.cursor.unwrap_or(0);
    let frames = api.control.attach(row.id, execution, cursor).await?;
    Ok(streamed(frames, execution, cursor, context, api.shutdown.clone()))
}

fn streamed(
    frames: FrameStream,
    execution_id: ExecutionId,
    cursor: u64,
    context: Context,
    shutdown: CancellationToken,
) -> Response {
    let started = stream::iter([Ok(ExecFrame::Started { execution_id })]);
    ndjson(started.chain(exec_frames(frames, cursor, context, shutdown)))
}

/// The frames as lines; the last is always `exit` or `error`.
fn exec_frames(
    frames: FrameStream,
    cursor: u64,
    context: Context,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<ExecFrame, Broken>> + Send {
    struct State {
        frames: FrameStream,
        cursor: u64,
        context: Context,
        shutdown: CancellationToken,
    }
    stream::unfold(Some(State { frames, cursor, context, shutdown }), async |state| {
        let mut state = state?;
        match next(&mut state.frames, &state.shutdown, || state.cursor).await {
            Ok(Frame::Exit(exit)) => Some((Ok(ExecFrame::Exit { exit }), None)),
            Ok(Frame::Stdout(bytes)) => {
                state.cursor += encoded(&bytes);
                let (data, encoding) = text(bytes);
                Some((Ok(ExecFrame::Stdout { data, encoding, cursor: state.cursor }), Some(state)))
            }
            Ok(Frame::Stderr(bytes)) => {
                state.cursor += encoded(&bytes);
                let (data, encoding) = text(bytes);
                Some((Ok(ExecFrame::Stderr { data, encoding, cursor: state.cursor }), Some(state)))
            }
            Err(failure) => Some((Ok(ExecFrame::Error { problem: state.context.problem(failure) }), None)),
        }
    })
}

/// The next frame; a failure where there is none and the exit has not come.
async fn next(
    frames: &mut FrameStream,
    shutdown: &CancellationToken,
    cursor: impl Fn() -> u64,
) -> Result<Frame, Failure> {
    let attach = || format!("attach to the execution again, at cursor {}", cursor());
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Failure::unavailable(format!("the host is going down: {}", attach()))),
        frame = frames.next() => match frame {
            Some(frame) => Ok(frame?),
            None => Err(Failure::unavailable(format!("the output was cut before the command's end: {}", attach()))),
        },
    }
}

/// Bytes of the record that carried these: what a cursor counts.
fn encoded(bytes: &[u8]) -> u64 {
    (bytes.len() + bytes.len().div_ceil(MAX_PAYLOAD) * RECORD_HEADER) as u64
}

fn text(bytes: Vec<u8>) -> (String, Encoding) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

/// The whole, as far as one answer holds it. Reads on to the end where it does not.
async fn collect(
    mut frames: FrameStream,
    execution_id: ExecutionId,
    shutdown: &CancellationToken,
) -> Result<ExecResult, Failure> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut cursor = 0;
    let mut truncated = false;
    let mut keep = |into: &mut Vec<u8>, bytes: &[u8]| {
        let room = (MAX_OUTPUT - into.len()).min(bytes.len());
        truncated |= room < bytes.len();
        into.extend_from_slice(&bytes[..room]);
    };
    let exit: Exit = loop {
        match next(&mut frames, shutdown, || cursor).await? {
            Frame::Stdout(bytes) => {
                cursor += encoded(&bytes);
                keep(&mut stdout, &bytes);
            }
            Frame::Stderr(bytes) => {
                cursor += encoded(&bytes);
                keep(&mut stderr, &bytes);
            }
            Frame::Exit(exit) => break exit,
        }
    };
    if truncated {
        // Not in the middle of a character, where it is text.
        [&mut stdout, &mut stderr].into_iter().for_each(end_at_a_character);
    }
    let is_text = std::str::from_utf8(&stdout).is_ok() && std::str::from_utf8(&stderr).is_ok();
    let (stdout, stderr, encoding) = if is_text {
        (text(stdout).0, text(stderr).0, Encoding::Utf8)
    } else {
        (STANDARD.encode(stdout), STANDARD.encode(stderr), Encoding::Base64)
    };
    Ok(ExecResult { execution_id, exit, stdout, stderr, encoding, truncated })
}

fn end_at_a_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_counts_the_bytes_of_the_frames_encoding() {
        for length in [0, 1, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD] {
            let bytes = vec![b'x'; length];
            let mut record = Vec::new();
            Frame::Stdout(bytes.clone()).encode(&mut record);
            assert_eq!(encoded(&bytes), record.len() as u64);
        }
    }
}
