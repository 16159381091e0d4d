//! The quay: talk and presence over a WebSocket, `/ws?name=…`.
//!
//! From the browser: `{"type": "say", "text": …}`. To it: `{"type": "people", "people": [name, …]}`
//! whenever somebody comes or goes, `{"type": "said", "message": {…}}`, and `{"type": "refused",
//! "message": …}` to the one who said what can't be said. Binary messages come back as they are, which
//! is how to measure what is in between. Whoever does not read is let go.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;
use crate::board::words;
use crate::error::Error;

/// Messages that a slow listener may be behind.
const BACKLOG: usize = 64;
/// The longest message, in bytes.
const MESSAGE_LIMIT: usize = 1024 * 1024;
/// Between two pings: what is in between sees that the connection is alive.
const PING: Duration = Duration::from_secs(20);
/// How long one message to the browser may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is here, and the line to all of them.
pub struct Quay {
    people: Mutex<BTreeMap<u64, String>>,
    line: broadcast::Sender<String>,
}

impl Default for Quay {
    fn default() -> Self {
        Self { people: Mutex::default(), line: broadcast::channel(BACKLOG).0 }
    }
}

impl Quay {
    /// Their names, in the order of coming.
    pub fn people(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    /// Tells all.
    fn tell(&self, message: &serde_json::Value) {
        // Nobody here is fine.
        let _ = self.line.send(message.to_string());
    }

    fn come(self: &Quay, name: String) -> u64 {
        let mut people = self.lock();
        let key = people.last_key_value().map_or(0, |(key, _)| key + 1);
        people.insert(key, name);
        drop(people);
        self.tell_people();
        key
    }

    fn go(&self, key: u64) {
        self.lock().remove(&key);
        self.tell_people();
    }

    fn tell_people(&self) {
        self.tell(&json!({ "type": "people", "people": self.people() }));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes somebody off the list when the connection ends, however it does.
struct Presence {
    app: Arc<App>,
    key: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.app.quay.go(self.key);
    }
}

#[derive(Debug, Deserialize)]
pub struct Who {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Saying {
    Say { text: String },
}

/// `GET /ws?name=…`
pub async fn connect(
    State(app): State<Arc<App>>,
    query: Result<Query<Who>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let name = query.map_err(Error::from).and_then(|Query(Who { name })| words("name", &name, 30));
    match name {
        Ok(name) => upgrade.max_message_size(MESSAGE_LIMIT).on_upgrade(move |socket| talk(app, socket, name)),
        Err(error) => error.into_response(),
    }
}

async fn talk(app: Arc<App>, socket: WebSocket, name: String) {
    let mut line = app.quay.line.subscribe();
    let presence = Presence { key: app.quay.come(name.clone()), app: app.clone() };
    let mut stopped = pin!(app.stopped());
    let (mut to, mut from) = socket.split();
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    loop {
        let answer = tokio::select! {
            message = from.next() => match message {
                Some(Ok(Message::Text(text))) => match hear(&app, &name, &text) {
                    Ok(()) => continue,
                    Err(why) => Message::Text(json!({ "type": "refused", "message": why }).to_string().into()),
                },
                Some(Ok(Message::Binary(bytes))) => Message::Binary(bytes),
                // Answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            },
            told = line.recv() => match told {
                Ok(text) => Message::Text(text.into()),
                Err(RecvError::Lagged(_)) => {
                    close(&mut to, close_code::POLICY, "you read too slowly").await;
                    break;
                }
                Err(RecvError::Closed) => break,
            },
            _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
            () = &mut stopped => {
                close(&mut to, close_code::RESTART, "the harbour closes").await;
                break;
            }
        };
        match tokio::time::timeout(PATIENCE, to.send(answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    drop(presence);
}

/// What somebody said goes on the board, and from there to all.
fn hear(app: &App, name: &str, text: &str) -> Result<(), String> {
    let Saying::Say { text } =
        serde_json::from_str(text).map_err(|error| format!("not understood: {error}"))?;
    let message = app.board.change("said", |state, now| state.say(name, &text, now));
    let message = message.map_err(|error| error.message)?;
    app.quay.tell(&json!({ "type": "said", "message": message }));
    Ok(())
}

async fn close(to: &mut (impl futures_util::Sink<Message> + Unpin), code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    // Told if it can be; the connection ends anyway.
    let _ = tokio::time::timeout(PATIENCE, to.send(Message::Close(Some(frame)))).await;
}
