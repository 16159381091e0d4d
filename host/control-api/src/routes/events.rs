//! What happened, and what happens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api_types::{EVENT_STREAM, Event, EventQuery, Page, code};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, sse};
use futures_util::{Stream, stream};
use store::{Change, EventFilter};

use super::{Answer, Api, deployments};
use crate::api::ControlApi;
use crate::changes::{Watch, Woken};
use crate::extract::{Params, Segments, asks_for};
use crate::failure::Failure;
use crate::{paging, view};

/// Header with which a client that comes back says what it has (HTML standard, "Server-sent events").
const LAST_EVENT_ID: &str = "last-event-id";
/// Events that are read at once for a stream.
const BATCH: u32 = 200;

/// List what happened, in order; or follow it as server-sent events (`follow=true`, or by `accept`), each with its
/// `seq` as its id. `nextCursor` of a page is the next one's `after`.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "listEvents", tag = "events",
    params(EventQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Resumes a stream behind this event.")),
    responses((status = 200, description = "A page, or a stream.", content(
        (Page<Event> = "application/json"),
        (Event = "text/event-stream"),
    ))),
)]
pub(super) async fn list(State(api): Api, headers: HeaderMap, Params(query): Params<EventQuery>) -> Answer {
    answer(api, EventFilter::default(), &headers, &query).await
}

/// As `/v1/events`, of one deployment. Also of one that is gone.
#[utoipa::path(
    get, path = "/v1/deployments/{deployment}/events", operation_id = "listDeploymentEvents", tag = "events",
    params(
        ("deployment" = String, Path, description = "`dep_…`"),
        EventQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "Resumes a stream behind this event."),
    ),
    responses((status = 200, description = "A page, or a stream.", content(
        (Page<Event> = "application/json"),
        (Event = "text/event-stream"),
    ))),
)]
pub(super) async fn of_deployment(
    State(api): Api,
    headers: HeaderMap,
    Segments(deployment): Segments<String>,
    Params(query): Params<EventQuery>,
) -> Answer {
    let row = deployments::find(&api, &deployment).await?;
    answer(api, EventFilter { deployment: Some(row.id), ..Default::default() }, &headers, &query).await
}

/// So that a stream where nothing happens is not taken for a dead one.
pub(super) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(Duration::from_secs(15)).text("keep-alive")
}

async fn answer(
    api: Arc<ControlApi>,
    filter: EventFilter,
    headers: &HeaderMap,
    query: &EventQuery,
) -> Answer {
    let limit = paging::limit(query.limit)?;
    if query.last.is_some() && query.after.is_some() {
        return Err(Failure::query("last", "give either `last` or `after`"));
    }
    if query.last.is_some_and(|last| last > BATCH) {
        return Err(Failure::query("last", format!("at most {BATCH}")));
    }
    let resumed = last_event_id(headers)?;
    // Before the first look, so that no event falls between.
    let watch = Watch::new(&api);
    let after: i64 = resumed.or(query.after).unwrap_or(0).try_into().unwrap_or(i64::MAX);
    let newest = match query.last.filter(|_| resumed.is_none()) {
        Some(last) => Some(newest(&api, filter, last).await?),
        None => None,
    };
    if query.follow.unwrap_or(false) || asks_for(headers, EVENT_STREAM) {
        let follower = match newest {
            Some((ready, after)) => Follower { api, filter, after, ready: ready.into(), watch },
            None => Follower { api, filter, after, ready: VecDeque::new(), watch },
        };
        return Ok(Sse::new(follower.events()).keep_alive(keep_alive()).into_response());
    }
    let items = match newest {
        Some((items, _)) => items,
        None => api.store.events_after(after, filter, limit).await?,
    };
    // A full page may have another behind it; a short one has not yet.
    let next_cursor =
        items.last().filter(|_| items.len() >= limit as usize).map(|event| event.seq.to_string());
    Ok(Json(Page { items: items.into_iter().map(view::event).collect(), next_cursor }).into_response())
}

/// The newest events, oldest first, and the number to go on behind.
async fn newest(
    api: &ControlApi,
    filter: EventFilter,
    last: u32,
) -> Result<(Vec<store::Event>, i64), Failure> {
    let mut events = match last {
        0 => Vec::new(),
        last => api.store.events_latest(filter, last).await?,
    };
    events.sort_by_key(|event| event.seq);
    let after = match events.last() {
        Some(event) => event.seq,
        // Nothing asked for, or nothing there: behind all that there is.
        None => {
            api.store.events_latest(EventFilter::default(), 1).await?.first().map_or(0, |event| event.seq)
        }
    };
    Ok((events, after))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    id.map(Some).ok_or_else(|| {
        Failure::field(
            code::INVALID_REQUEST,
            format!("#{LAST_EVENT_ID}"),
            "expected the number of an event, as its id was",
        )
    })
}

/// Reads events as they come, each once and in order.
struct Follower {
    api: Arc<ControlApi>,
    filter: EventFilter,
    after: i64,
    ready: VecDeque<store::Event>,
    watch: Watch,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
        stream::unfold(self, async |mut follower| {
            let event = follower.next().await?;
            let id = event.seq.to_string();
            let sent = sse::Event::default().id(id).json_data(view::event(event)).unwrap_or_default();
            Some((Ok(sent), follower))
        })
    }

    /// None: the host is going down.
    async fn next(&mut self) -> Option<store::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = self.after.max(event.seq);
                return Some(event);
            }
            let woken = match self.api.store.events_after(self.after, self.filter, BATCH).await {
                Ok(events) if !events.is_empty() => {
                    self.ready = events.into();
                    continue;
                }
                Ok(_) => {
                    let after = self.after;
                    self.watch.changed(|change| matches!(change, Change::Events(seq) if *seq > after)).await
                }
                Err(error) => {
                    tracing::debug!(error = crate::failure::chain(&error), "an event stream could not look");
                    self.watch.pause().await
                }
            };
            if woken == Woken::Shutdown {
                return None;
            }
        }
    }
}
