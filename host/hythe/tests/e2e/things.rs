//! The service that the third adapter drives: keeps things, each of which then answers requests.
//!
//! Told to, it fails: every n-th call is carried out and answered with 500.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// The service, for as long as it is held.
pub struct Things {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    things: BTreeMap<String, Thing>,
    calls: u64,
    /// Every so many calls one loses its answer; 0: none.
    fail_every: u64,
    activations: Vec<String>,
}

struct Thing {
    key: String,
    state: &'static str,
    incarnation: u64,
    greeting: String,
}

impl Things {
    /// Starts it on a free port.
    pub async fn start(fail_every: u64) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared { fail_every, ..Shared::default() }));
        let kept = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = service_fn(move |request| answer(shared.clone(), address.port(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Self { address, shared: kept, task })
    }

    /// Each activation of a thing, in order, as `<deployment>-<incarnation>`.
    pub fn activations(&self) -> Vec<String> {
        self.shared.lock().unwrap().activations.clone()
    }

    pub fn count(&self) -> usize {
        self.shared.lock().unwrap().things.len()
    }

    /// A thing breaks by itself.
    pub fn break_all(&self) {
        for thing in self.shared.lock().unwrap().things.values_mut() {
            thing.state = "broken";
        }
    }
}

impl Drop for Things {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    shared: Arc<Mutex<Shared>>,
    port: u16,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut shared = shared.lock().unwrap();
    if !head.uri.path().starts_with("/things") {
        let greeting =
            shared.things.values().find(|thing| thing.state == "active").map(|thing| thing.greeting.clone());
        return Ok(text(StatusCode::OK, greeting.unwrap_or_default()));
    }
    shared.calls += 1;
    let loses_answer = shared.fail_every > 0 && shared.calls.is_multiple_of(shared.fail_every);
    let answer = shared.act(&head.method, head.uri.path(), &body, port);
    Ok(if loses_answer { text(StatusCode::INTERNAL_SERVER_ERROR, String::new()) } else { answer })
}

impl Shared {
    fn act(&mut self, method: &Method, path: &str, body: &Value, port: u16) -> Response<Full<Bytes>> {
        // What was asked for happens by the next call.
        if method == Method::GET {
            self.things.retain(|_, thing| thing.state != "deleting");
            for thing in self.things.values_mut() {
                match thing.state {
                    "activating" => thing.state = "active",
                    "deactivating" => thing.state = "inactive",
                    _ => {}
                }
            }
        }
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", []) => {
                let key = body["key"].as_str().unwrap_or_default().to_owned();
                if let Some((id, thing)) = self.things.iter().find(|(_, thing)| thing.key == key) {
                    return show(StatusCode::OK, id, thing, port);
                }
                let id = format!("t{}", self.calls);
                let thing = Thing { key, state: "new", incarnation: 0, greeting: String::new() };
                let answer = show(StatusCode::CREATED, &id, &thing, port);
                self.things.insert(id, thing);
                answer
            }
            (method, [id, rest @ ..]) => {
                let Some(thing) = self.things.get_mut(*id) else {
                    return text(StatusCode::NOT_FOUND, String::new());
                };
                match (method, rest) {
                    ("GET", []) => return show(StatusCode::OK, id, thing, port),
                    ("PUT", ["config"]) => {
                        thing.state = "configured";
                        thing.incarnation = body["incarnation"].as_u64().unwrap_or_default();
                        thing.greeting = body["greeting"].as_str().unwrap_or_default().to_owned();
                    }
                    ("POST", ["activate"]) => {
                        thing.state = "activating";
                        let deployment = thing.key.rsplit_once('-').map_or("", |(deployment, _)| deployment);
                        let activation = format!("{deployment}-{}", thing.incarnation);
                        self.activations.push(activation);
                    }
                    ("POST", ["deactivate"]) => thing.state = "deactivating",
                    ("DELETE", []) => thing.state = "deleting",
                    _ => return text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
                }
                text(StatusCode::ACCEPTED, "{}".to_owned())
            }
            _ => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
        }
    }
}

fn show(status: StatusCode, id: &str, thing: &Thing, port: u16) -> Response<Full<Bytes>> {
    let shown = json!({
        "id": id, "key": thing.key, "state": thing.state, "incarnation": thing.incarnation,
        "port": (thing.state == "active").then_some(port),
    });
    text(status, shown.to_string())
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
