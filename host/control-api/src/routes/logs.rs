//! What a deployment prints.

use std::convert::Infallible;

use agent_api::LogQuery;
use api_types::{EVENT_STREAM, LogLine, LogsQuery, Problem, schema};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{Answer, Api, deployments, events};
use crate::boundary::LineStream;
use crate::context::Context;
use crate::extract::{Params, Segments, asks_for};
use crate::failure::Failure;
use crate::stream::{Broken, ndjson};

const DEFAULT_LINES: u32 = 100;
const MAX_LINES: u32 = 100_000;

/// Read a deployment's log: a `LogLine` a line, or with `accept: text/event-stream` an event a line.
///
/// Where it breaks, the last line is one of the origin `hythe` that says why, and the answer ends without its proper
/// end; an event stream has an event `problem`.
#[utoipa::path(
    get, path = "/v1/deployments/{deployment}/logs", operation_id = "readLogs", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`"), LogsQuery),
    responses((status = 200, description = "Lines.", content(
        (schema::LogLine = "application/x-ndjson"),
        (schema::LogLine = "text/event-stream"),
    ))),
)]
pub(super) async fn logs(
    State(api): Api,
    context: Context,
    headers: HeaderMap,
    Segments(deployment): Segments<String>,
    Params(query): Params<LogsQuery>,
) -> Answer {
    let lines = query.lines.unwrap_or(DEFAULT_LINES);
    if lines > MAX_LINES {
        return Err(Failure::query("lines", format!("{lines} is more than {MAX_LINES}")));
    }
    let since_ms = query.since.map(|since| since.timestamp_millis().try_into().unwrap_or(0));
    let row = deployments::find(&api, &deployment).await?;
    let query = LogQuery { lines, follow: query.follow.unwrap_or(false), since_ms };
    let lines = until_the_end(api.control.logs(row.id, query).await?, context, api.shutdown.clone());
    if asks_for(&headers, EVENT_STREAM) {
        let events = lines.map(|line| {
            let event = match &line {
                Ok(line) => Event::default().json_data(line),
                Err(problem) => Event::default().event("problem").json_data(&**problem),
            };
            Ok::<_, Infallible>(event.unwrap_or_default())
        });
        return Ok(Sse::new(events).keep_alive(events::keep_alive()).into_response());
    }
    Ok(ndjson(lines.flat_map(|line| {
        stream::iter(match line {
            Ok(line) => vec![Ok(line)],
            Err(problem) => vec![Ok(last_words(&problem)), Err(Broken)],
        })
    })))
}

fn last_words(problem: &Problem) -> LogLine {
    let at_ms = chrono::Utc::now().timestamp_millis().try_into().unwrap_or(0);
    LogLine {
        at_ms,
        origin: "hythe".to_owned(),
        text: format!("the log breaks off here: {}", problem.detail),
    }
}

/// The lines; a problem is the last.
fn until_the_end(
    lines: LineStream,
    context: Context,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<LogLine, Box<Problem>>> + Send {
    stream::unfold(Some((lines, context, shutdown)), async |state| {
        let (mut lines, context, shutdown) = state?;
        let failure = tokio::select! {
            biased;
            () = shutdown.cancelled() => Failure::unavailable("the host is going down: read again soon"),
            line = lines.next() => match line? {
                Ok(line) => return Some((Ok(line), Some((lines, context, shutdown)))),
                Err(error) => error.into(),
            },
        };
        Some((Err(Box::new(context.problem(failure))), None))
    })
}
