//! Around every request: its id, its span, and the one place where a failure becomes a problem.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api_types::{PROBLEM_JSON, REQUEST_ID, code};
use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::failure::Failure;

/// The longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 64;

/// What a problem says of its request.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) request_id: Arc<str>,
    pub(crate) instance: Arc<str>,
}

impl Context {
    pub(crate) fn problem(&self, failure: Failure) -> api_types::Problem {
        if let Some(cause) = failure.cause() {
            tracing::warn!(request.id = %self.request_id, problem.code = failure.code(), cause, "stream failed");
        }
        failure.problem(&self.instance, &self.request_id)
    }
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(|| Self::new(&parts.headers, parts.uri.path())))
    }
}

impl Context {
    fn new(headers: &HeaderMap, path: &str) -> Self {
        Self { request_id: request_id(headers), instance: path.into() }
    }
}

/// The client's own id where it has a plain one, so that both sides' logs meet.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let is_plain = |id: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain)
    };
    match headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain) {
        Some(id) => id.into(),
        None => format!("req_{}", uuid::Uuid::now_v7().simple()).into(),
    }
}

/// The outermost layer.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let context = Context::new(request.headers(), request.uri().path());
    request.extensions_mut().insert(context.clone());
    let span = tracing::info_span!(
        "api.request",
        http.request.method = %request.method(),
        url.path = %context.instance,
        request.id = %context.request_id,
    );
    let mut response = answer(&context, request, next).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(context: &Context, request: Request, next: Next) -> Response {
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => Failure::internal(format!("panic: {}", panic_text(&*panic))).into_response(),
    };
    let status = response.status();
    let failure = match response.extensions_mut().remove::<Failure>() {
        Some(failure) => failure,
        None if !status.is_client_error() && !status.is_server_error() => {
            tracing::debug!(http.response.status_code = status.as_u16(), "answered");
            return response;
        }
        None if is_json(&response) => return response,
        // Something of the libraries below answered by itself.
        None => foreign(status),
    };
    let status = failure.status().as_u16();
    match failure.cause() {
        Some(cause) if status == 500 => {
            tracing::error!(http.response.status_code = status, cause, "request failed");
        }
        cause => tracing::info!(
            http.response.status_code = status,
            problem.code = failure.code(),
            cause,
            "refused"
        ),
    }
    *response.body_mut() = Body::empty();
    failure.respond(response, &context.instance, &context.request_id)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

fn is_json(response: &Response) -> bool {
    let is = |value: &HeaderValue| {
        [b"application/json".as_slice(), PROBLEM_JSON.as_bytes()].contains(&value.as_bytes())
    };
    response.headers().get(header::CONTENT_TYPE).is_some_and(is)
}

fn foreign(status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => Failure::new(code::NOT_FOUND, "there is nothing here"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Failure::new(code::METHOD_NOT_ALLOWED, "this route does not take the request's method")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::new(code::TOO_LARGE, "the body is too large for this route")
        }
        status if status.is_client_error() => {
            Failure::new(code::INVALID_REQUEST, "the request can't be read")
        }
        status => Failure::internal(format!("a library answered {status}")),
    }
}
