//! Uploaded archives.

use api_types::{Source, code};
use artifacts::Digest;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::StreamExt;

use super::Api;
use crate::extract::Segments;
use crate::failure::Failure;
use crate::view;

/// Upload an archive (tar.zst) under its SHA-256. Nothing of one that is refused stays.
#[utoipa::path(
    put, path = "/v1/sources/{sha256}", operation_id = "putSource", tag = "sources",
    request_body(content = Vec<u8>, content_type = "application/zstd"),
    params(("sha256" = String, Path, description = "Of the body, lower-case hex.")),
    responses(
        (status = 201, description = "Stored.", body = Source),
        (status = 200, description = "Was stored already.", body = Source),
    ),
)]
pub(super) async fn put(
    State(api): Api,
    Segments(sha256): Segments<String>,
    body: Body,
) -> Result<(StatusCode, Json<Source>), Failure> {
    let digest = digest(&sha256)?;
    let mut bytes = body.into_data_stream();
    let stored = match api.artifacts.put(&digest, &mut bytes).await {
        Ok(stored) => stored,
        Err(error) => {
            // A client that still sends would see its connection reset instead of the problem.
            let mut left = api.artifacts.limits().archive_bytes;
            while let Some(Ok(chunk)) = bytes.next().await {
                left = left.saturating_sub(chunk.len() as u64);
                if left == 0 {
                    break;
                }
            }
            return Err(error.into());
        }
    };
    let row = api.store.source_record(&sha256, stored.size).await?;
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view::source(row))))
}

/// Whether an archive is stored.
#[utoipa::path(
    head, path = "/v1/sources/{sha256}", operation_id = "headSource", tag = "sources",
    params(("sha256" = String, Path, description = "Lower-case hex.")),
    responses((status = 200, description = "It is.")),
)]
pub(super) async fn head(State(api): Api, Segments(sha256): Segments<String>) -> Result<StatusCode, Failure> {
    let digest = digest(&sha256)?;
    if api.artifacts.exists(&digest).await? && api.store.source_get(&sha256).await?.is_some() {
        Ok(StatusCode::OK)
    } else {
        Err(Failure::new(code::NOT_FOUND, format!("no archive {sha256} is stored")))
    }
}

fn digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|error: artifacts::InvalidDigest| Failure::new(code::INVALID_ID, error.to_string()))
}
