//! The host itself.

use std::time::Duration;

use api_types::{ServiceHealth, ServiceStatus};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use bytes::Bytes;

use super::Api;

/// How long the database may take to answer a health check.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The API's description, written out.
#[derive(Clone)]
pub(super) struct Document(pub(super) Bytes);

/// Whether the host works. Needs no token.
#[utoipa::path(
    get, path = "/v1/health", operation_id = "getHealth", tag = "host",
    responses(
        (status = 200, description = "All works.", body = ServiceHealth),
        (status = 503, description = "Something does not.", body = ServiceHealth),
    ),
    security(()),
)]
pub(super) async fn health(State(api): Api) -> (StatusCode, Json<ServiceHealth>) {
    let answered = tokio::time::timeout(DATABASE_TIMEOUT, api.store.ping()).await;
    let (code, status) = match answered {
        Ok(Ok(())) => (StatusCode::OK, ServiceStatus::Ok),
        _ => (StatusCode::SERVICE_UNAVAILABLE, ServiceStatus::Unavailable),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    (code, Json(ServiceHealth { status, version, database: status }))
}

/// This description (OpenAPI 3.1). `/v1/docs` shows it. Needs no token.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "getDescription", tag = "host",
    responses((status = 200, description = "The description.", body = Object)),
    security(()),
)]
pub(super) async fn document(Extension(Document(document)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document)
}

/// What Prometheus reads.
#[utoipa::path(
    get, path = "/v1/metrics", operation_id = "getMetrics", tag = "host",
    responses((status = 200, description = "Metrics.", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(api): Api) -> impl IntoResponse {
    let text = (api.metrics)();
    // Only OpenMetrics has an end.
    let content_type = if text.trim_end().ends_with("# EOF") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(header::CONTENT_TYPE, content_type)], text)
}
