//! The JSON API.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;
use crate::board::{Arrival, BERTHS, Boat, Message};
use crate::error::Error;
use crate::tide;

type Result<T> = std::result::Result<T, Error>;
/// A body that is JSON of the right form, or the reason why not.
type Body<T> = std::result::Result<Json<T>, JsonRejection>;
type Words<T> = std::result::Result<Query<T>, QueryRejection>;

/// `GET /healthz`: 200 while it serves, 503 once it was told to end.
pub async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    let stopping = *app.stopping.borrow();
    let (status, word) =
        if stopping { (StatusCode::SERVICE_UNAVAILABLE, "closing") } else { (StatusCode::OK, "ok") };
    let boats = app.board.read(|state| state.boats.len());
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "status": word, "boats": boats })))
}

/// `GET /api/board`: all of it, as the front page shows it.
pub async fn board(State(app): State<Arc<App>>) -> Json<Value> {
    let board = app.board.read(|state| {
        let berths = BERTHS.iter().map(|berth| {
            json!({ "name": berth.name, "maxLength": berth.max_length, "boat": state.at(berth.name) })
        });
        let waiting: Vec<_> = state.boats.iter().filter(|boat| boat.berth.is_none()).collect();
        json!({ "berths": berths.collect::<Vec<_>>(), "waiting": waiting })
    });
    Json(json!({
        "berths": board["berths"],
        "waiting": board["waiting"],
        "tide": tide::at(Utc::now()),
        "people": app.quay.people(),
    }))
}

/// `GET /api/boats`
pub async fn boats(State(app): State<Arc<App>>) -> Json<Vec<Boat>> {
    Json(app.board.read(|state| state.boats.clone()))
}

/// `POST /api/boats` `{name, kind, length}`: 201 with the boat and its address.
pub async fn arrive(State(app): State<Arc<App>>, body: Body<Arrival>) -> Result<impl IntoResponse> {
    let Json(arrival) = body?;
    let boat = app.board.change("arrived", |state, now| state.arrive(arrival, now))?;
    let location = format!("/api/boats/{}", boat.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(boat)))
}

/// `GET /api/boats/{id}`
pub async fn boat(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Boat>> {
    let id = number(&id)?;
    app.board.read(|state| state.boat(id).cloned()).map(Json)
}

/// `DELETE /api/boats/{id}`: it leaves. 204
pub async fn depart(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    let id = number(&id)?;
    app.board.change("departed", |state, now| state.depart(id, now))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where to moor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mooring {
    berth: String,
}

/// `POST /api/boats/{id}/berth` `{berth}`
pub async fn moor(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    body: Body<Mooring>,
) -> Result<Json<Boat>> {
    let id = number(&id)?;
    let Json(Mooring { berth }) = body?;
    app.board.change("moored", |state, now| state.moor(id, &berth, now)).map(Json)
}

/// `DELETE /api/boats/{id}/berth`: back to the roads.
pub async fn cast_off(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Boat>> {
    let id = number(&id)?;
    app.board.change("cast-off", |state, now| state.cast_off(id, now)).map(Json)
}

/// Which messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Only later ones than this.
    #[serde(default)]
    after: u64,
}

/// `GET /api/messages?after=`
pub async fn messages(State(app): State<Arc<App>>, query: Words<Which>) -> Result<Json<Vec<Message>>> {
    let Query(Which { after }) = query?;
    let later = |message: &&Message| message.id > after;
    Ok(Json(app.board.read(|state| state.messages.iter().filter(later).cloned().collect())))
}

/// What somebody says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saying {
    author: String,
    text: String,
}

/// `POST /api/messages` `{author, text}`: 201
pub async fn say(State(app): State<Arc<App>>, body: Body<Saying>) -> Result<impl IntoResponse> {
    let Json(Saying { author, text }) = body?;
    let message = app.board.change("said", |state, now| state.say(&author, &text, now))?;
    Ok((StatusCode::CREATED, Json(message)))
}

/// A message that is no more.
#[derive(Debug, Serialize)]
struct Unsaid {
    id: u64,
}

/// `DELETE /api/messages/{id}`: 204
pub async fn unsay(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode> {
    let id = number(&id)?;
    app.board.change("unsaid", |state, _| state.unsay(id).map(|()| Unsaid { id }))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/info`: which program answers, and what of the request reached it. For whoever looks at
/// what is in front of it.
pub async fn info(State(app): State<Arc<App>>, headers: HeaderMap) -> Json<Value> {
    let mut seen = serde_json::Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        seen.insert(name.to_string(), values.collect::<Vec<_>>().join(", ").into());
    }
    Json(json!({
        "run": app.run,
        "pid": std::process::id(),
        "uptimeMs": app.started.elapsed().as_millis() as u64,
        "folder": std::env::current_dir().ok(),
        "headers": seen,
    }))
}

/// An id of the address; what is none is not found.
pub fn number(id: &str) -> Result<u64> {
    id.parse().map_err(|_| Error::not_found(format!("there is no {id:?}: ids are numbers")))
}
