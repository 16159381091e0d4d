//! Bodies that are streamed: events, bytes by the million, slow answers, and what comes in.
//!
//! None of them is ever held whole, in either direction.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, IntervalStream};

use crate::app::App;
use crate::error::Error;
use crate::events::{Event, Listening};

type Words<T> = Result<Query<T>, QueryRejection>;

/// The longest `blob`, in bytes: 16 GiB.
const MOST_BYTES: u64 = 16 << 30;
/// The longest `slow`, in milliseconds: an hour.
const MOST_MS: u64 = 3_600_000;
const CHUNK: usize = 64 * 1024;

/// `GET /api/events`: what happens, as server-sent events. `Last-Event-ID` says where to take up; the
/// event `gap` says that some are forgotten, and the board is to be read anew.
pub async fn events(State(app): State<Arc<App>>, headers: HeaderMap) -> impl IntoResponse {
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let Listening { missed, gap, coming } = app.feed.listen(after);
    let gap = gap.then(|| sse::Event::default().event("gap").data("{}"));
    let hello = sse::Event::default().event("hello").data(json!({ "run": app.run }).to_string());
    // A browser that comes back at once would find nobody while the program restarts.
    let hello = hello.retry(Duration::from_secs(1));
    let coming = BroadcastStream::new(coming).map(|event| match event {
        Ok(event) => sse_event(event),
        Err(BroadcastStreamRecvError::Lagged(_)) => sse::Event::default().event("gap").data("{}"),
    });
    let all = stream::iter([hello])
        .chain(stream::iter(gap))
        .chain(stream::iter(missed).map(sse_event))
        .chain(coming);
    Sse::new(all.take_until(app.stopped()).map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

fn sse_event(event: Event) -> sse::Event {
    sse::Event::default().id(event.id.to_string()).event(event.name).data(event.data)
}

/// How many bytes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    bytes: u64,
}

/// `GET /api/blob?bytes=N`: N bytes, of which byte i is `i mod 251` (a prime, so that a cut, a repeat
/// or a swap of blocks shows).
pub async fn blob(query: Words<Size>) -> Result<Response, Error> {
    let Query(Size { bytes }) = query?;
    if bytes > MOST_BYTES {
        return Err(Error::invalid("bytes", format!("{bytes} bytes are too many: at most {MOST_BYTES}")));
    }
    // Any window of the pattern is a slice of this.
    let pattern: Bytes = (0..CHUNK + 251).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    let chunks = stream::iter((0..bytes).step_by(CHUNK)).map(move |at| {
        let (from, length) = ((at % 251) as usize, (bytes - at).min(CHUNK as u64) as usize);
        Ok::<_, Infallible>(pattern.slice(from..from + length))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// How slow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// How long it takes in all, in milliseconds.
    ms: u64,
    /// Between two lines, in milliseconds.
    #[serde(default = "quarter_of_a_second")]
    every: u64,
}

fn quarter_of_a_second() -> u64 {
    250
}

/// `GET /api/slow?ms=M&every=E`: a line at once and then every E ms, for M ms; the last line is
/// `done`. Goes on when the program is told to end, for as long as the grace lasts: it is a request
/// like any other.
pub async fn slow(query: Words<Pace>) -> Result<Response, Error> {
    let Query(Pace { ms, every }) = query?;
    if ms > MOST_MS {
        return Err(Error::invalid("ms", format!("{ms} ms are too many: at most {MOST_MS}")));
    }
    if every == 0 {
        return Err(Error::invalid("every", "every is 0: give it at least 1 ms"));
    }
    let steps = ms / every;
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(every)));
    let lines = ticks.take(steps as usize + 1).enumerate().map(move |(step, _)| match step as u64 {
        step if step == steps => Ok::<_, Infallible>("done\n".to_owned()),
        step => Ok(format!("{}\n", step * every)),
    });
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// `POST /api/echo`: the body comes back as it comes in, with its content type.
pub async fn echo(headers: HeaderMap, body: Body) -> Response {
    let mut response = Body::from_stream(body.into_data_stream()).into_response();
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

/// `POST /api/upload`: counts and sums what comes in. `{bytes, fnv1a64}`
pub async fn upload(body: Body) -> Result<Json<Value>, Error> {
    let (bytes, sum) = measure(body.into_data_stream()).await?;
    Ok(Json(json!({ "bytes": bytes, "fnv1a64": sum.hex() })))
}

async fn measure(mut body: BodyDataStream) -> Result<(u64, Fnv), Error> {
    let (mut bytes, mut sum) = (0, Fnv::default());
    let cut =
        |error: axum::Error| Error::conflict("body-cut", format!("the body ended before its end: {error}"));
    while let Some(chunk) = body.try_next().await.map_err(cut)? {
        bytes += chunk.len() as u64;
        sum.add(&chunk);
    }
    Ok((bytes, sum))
}

/// FNV-1a, 64 bits (RFC 9923): tells versions apart; no defence against people.
#[derive(Debug, Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_fnv_1a() {
        let sum = |text: &str| {
            let mut sum = Fnv::default();
            sum.add(text.as_bytes());
            sum.hex()
        };
        // RFC 9923, appendix C's vectors.
        assert_eq!(sum(""), "cbf29ce484222325");
        assert_eq!(sum("a"), "af63dc4c8601ec8c");
        assert_eq!(sum("foobar"), "85944171f73967e8");
    }
}
