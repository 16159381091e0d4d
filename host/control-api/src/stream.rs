//! Answers that go on: JSON, a line a value.

use api_types::NDJSON;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

/// Each value as one line, sent as soon as it is there.
pub(crate) fn ndjson<T: Serialize>(
    values: impl Stream<Item = Result<T, Broken>> + Send + 'static,
) -> Response {
    let lines = values.map(|value| {
        let mut line = serde_json::to_vec(&value?).map_err(|_| Broken)?;
        line.push(b'\n');
        Ok::<_, Broken>(Bytes::from(line))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Ends an answer without its proper end, so that its reader does not take it for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the stream broke")]
pub(crate) struct Broken;
