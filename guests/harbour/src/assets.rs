//! Files of `public/`: read once, served with an ETag. A page names them with their tag in the query
//! (`/assets/harbour.css?v=…`): such an answer may be kept for ever, any other is asked about again.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::app::App;
use crate::streams::Fnv;

struct Asset {
    bytes: Bytes,
    tag: String,
    content_type: &'static str,
}

/// All of them, by name.
#[derive(Default)]
pub struct Assets(BTreeMap<String, Asset>);

impl Assets {
    /// Reads the files of a folder; folders in it are left out.
    ///
    /// # Errors
    /// Where there is no such folder, or a file can't be read.
    pub fn load(folder: &FilePath) -> Result<Self> {
        let failed = || {
            format!(
                "can't read the folder {}: run where `public` is, or set HARBOUR_PUBLIC",
                folder.display()
            )
        };
        let mut assets = BTreeMap::new();
        for entry in std::fs::read_dir(folder).with_context(failed)? {
            let path = entry.with_context(failed)?.path();
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut sum = Fnv::default();
            sum.add(&bytes);
            let asset = Asset { bytes: bytes.into(), tag: sum.hex(), content_type: content_type(&name) };
            assets.insert(name, asset);
        }
        Ok(Self(assets))
    }

    /// Where a page finds it.
    pub fn url(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(asset) => format!("/assets/{name}?v={}", asset.tag),
            None => format!("/assets/{name}"),
        }
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// `GET /assets/{name}`
pub async fn serve(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some(asset) = app.assets.0.get(&name) else {
        return (StatusCode::NOT_FOUND, "no such file\n").into_response();
    };
    let etag = format!("\"{}\"", asset.tag);
    let pinned = uri.query().is_some_and(|query| query == format!("v={}", asset.tag));
    let keep = if pinned { "public, max-age=31536000, immutable" } else { "no-cache" };
    let caching = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, keep.to_owned())];
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    if known.flat_map(|value| value.split(',')).any(|value| value.trim().trim_start_matches("W/") == etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes.clone()).into_response()
}
