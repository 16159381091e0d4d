//! What the handlers share, and the table of routes.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post};
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::assets::{self, Assets};
use crate::board::{Board, State};
use crate::chat::{self, Quay};
use crate::events::Feed;
use crate::keeper::Handle;
use crate::{api, error, pages, streams};

/// The longest JSON body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// One harbour.
pub struct App {
    pub board: Board,
    pub feed: Feed,
    pub quay: Quay,
    pub assets: Assets,
    /// Turns true when the program is told to end.
    pub stopping: watch::Receiver<bool>,
    /// Names this run: another after every start.
    pub run: String,
    pub started: Instant,
}

impl App {
    pub fn new(state: State, keeper: Handle, assets: Assets, stopping: watch::Receiver<bool>) -> Self {
        let feed = Feed::default();
        let run = format!("{:x}-{}", chrono::Utc::now().timestamp_millis(), std::process::id());
        Self {
            board: Board::new(state, feed.clone(), keeper),
            feed,
            quay: Quay::default(),
            assets,
            stopping,
            run,
            started: Instant::now(),
        }
    }

    /// Ends when the program is told to end.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // An error means that the sender is gone: the program is ending too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }
}

/// All routes, on one page.
pub fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/board", get(api::board))
        .route("/boats", get(api::boats).post(api::arrive))
        .route("/boats/{id}", get(api::boat).delete(api::depart))
        .route("/boats/{id}/berth", post(api::moor).delete(api::cast_off))
        .route("/messages", get(api::messages).post(api::say))
        .route("/messages/{id}", delete(api::unsay))
        .route("/info", get(api::info))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        // Bodies of any length, never held whole.
        .route("/events", get(streams::events))
        .route("/blob", get(streams::blob))
        .route("/slow", get(streams::slow))
        .route("/echo", post(streams::echo))
        .route("/upload", post(streams::upload))
        .fallback(error::no_such_api);
    Router::new()
        .route("/", get(pages::front))
        .route("/fragments/board", get(pages::board_fragment))
        .route("/boats/{id}", get(pages::boat))
        .route("/log", get(pages::log))
        .route("/healthz", get(api::health))
        .route("/ws", any(chat::connect))
        .route("/assets/{*path}", get(assets::serve))
        .nest("/api", api)
        .fallback(pages::not_found)
        .layer(CatchPanicLayer::new())
        .with_state(app)
}
