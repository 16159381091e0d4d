//! What is asked, and the answers: `agent_api::path` on one page.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{
    AgentStatus, DaemonHealth, ExecRequest, LocalPort, LogQuery, StopRequest, WorkloadSpec, header, path,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use model::{DeploymentId, ExecutionId, Fence};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Server;
use super::connection::Peer;
use super::tunnel;
use crate::context::Life;
use crate::facts;
use crate::problem::Refusal;
use crate::source::{SourceError, check_digest};
use crate::workload::Workload;

pub type Answer = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

const MAX_JSON: usize = 1 << 20;
/// A JSON body, whole.
const JSON_PATIENCE: Duration = Duration::from_secs(30);
/// Between two pieces of an upload.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(60);
/// Of a refused upload, so much is read before the answer, so that the answer arrives.
const DRAIN: usize = 2 << 30;
/// Pieces of a stream that wait for a slow reader.
const AHEAD: usize = 4;

/// Answers one request.
pub async fn answer(server: &Arc<Server>, peer: &Peer, request: Request<Incoming>) -> Answer {
    let admitted = peer.admit(request.headers());
    let is_health = request.method() == Method::GET && request.uri().path() == path::HEALTH;
    let (proof, answered) = match admitted {
        Ok(proof) => (proof, route(server, request).await),
        Err(_) if is_health && !request.headers().contains_key(header::AUTHORIZATION) => {
            (None, Ok(health(server)))
        }
        Err(refusal) => (None, Err(refusal)),
    };
    let mut answer = answered.unwrap_or_else(|refusal| refused(&refusal));
    if let Some(proof) = proof {
        answer.headers_mut().insert(header::PROOF, proof);
    }
    answer
}

async fn route(server: &Arc<Server>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    if *server.context.life.borrow() != Life::Serving {
        return Err(Refusal::unavailable("the daemon is ending: try again when it is back"));
    }
    let method = request.method().clone();
    if method == Method::CONNECT {
        return tunnel::open(server, request).await;
    }
    let whole = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let segments: Vec<&str> = whole.split('/').skip(1).collect();
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["health"]) => Ok(health(server)),
        ("GET", ["v1", "status"]) => Ok(json(
            StatusCode::OK,
            &AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                machine: facts::machine(None),
                workloads: server.workloads.statuses(),
            },
        )),
        ("HEAD", ["v1", "sources", digest]) => has_source(server, digest),
        ("PUT", ["v1", "sources", digest]) => put_source(server, digest, request.into_body()).await,
        ("GET", ["v1", "workloads", id]) => {
            let status = workload(server, id)?.status();
            Ok(json(StatusCode::OK, &status.ok_or_else(|| unknown(id))?))
        }
        ("PUT", ["v1", "workloads", id]) => {
            let fence = fence(id, request.headers())?;
            let spec: WorkloadSpec = read(request).await?;
            let status = server.workloads.enter(fence.deployment).put(fence, spec).await?;
            Ok(json(StatusCode::OK, &status))
        }
        ("DELETE", ["v1", "workloads", id]) => {
            let fence = fence(id, request.headers())?;
            let status = server.workloads.enter(fence.deployment).destroy(fence).await?;
            Ok(json(StatusCode::OK, &status))
        }
        ("POST", ["v1", "workloads", id, "stop"]) => {
            let fence = fence(id, request.headers())?;
            let stop: StopRequest = read(request).await?;
            let status = server.workloads.enter(fence.deployment).stop(fence, stop.grace_ms).await?;
            Ok(json(StatusCode::OK, &status))
        }
        ("GET", ["v1", "workloads", id, "ports", port]) => {
            let local_port = workload(server, id)?.local_port(port).await?;
            Ok(json(StatusCode::OK, &LocalPort { local_port }))
        }
        ("POST", ["v1", "workloads", id, "executions", execution]) => {
            let workload = workload(server, id)?;
            check_incarnation(&workload, request.headers())?;
            let execution = parse_execution(execution)?;
            let request: ExecRequest = read(request).await?;
            let transcript = run_detached(workload, execution, request).await?;
            Ok(stream("application/octet-stream", |to| transcript.send(0, to)))
        }
        ("GET", ["v1", "workloads", id, "executions", execution]) => {
            let cursor = parameter(&query, "cursor")?.unwrap_or(0);
            let found = workload(server, id)?.executions.find(parse_execution(execution)?);
            let transcript = found.ok_or_else(|| {
                Refusal::not_found(format!(
                    "the execution {execution} is not, or no longer, known on this machine"
                ))
            })?;
            Ok(stream("application/octet-stream", |to| transcript.send(cursor, to)))
        }
        ("GET", ["v1", "workloads", id, "logs"]) => {
            let query = LogQuery {
                lines: parameter(&query, "lines")?.unwrap_or(100),
                follow: parameter(&query, "follow")?.unwrap_or(false),
                since_ms: parameter(&query, "sinceMs")?,
            };
            let folder = workload(server, id)?.log_folder();
            Ok(stream("application/x-ndjson", |to| crate::log::send(folder, query, to)))
        }
        (method, _) => Err(Refusal::not_found(format!("the daemon has no {method} {whole}"))),
    }
}

fn health(server: &Server) -> Answer {
    let uptime_ms = u64::try_from(server.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    json(StatusCode::OK, &DaemonHealth { status: "ok".to_owned(), version, uptime_ms })
}

fn has_source(server: &Server, digest: &str) -> Result<Answer, Refusal> {
    check_digest(digest)?;
    match server.context.sources.find(digest) {
        Some(_) => Ok(empty(StatusCode::OK)),
        // HEAD: no body.
        None => Ok(empty(StatusCode::NOT_FOUND)),
    }
}

async fn put_source(server: &Arc<Server>, digest: &str, mut body: Incoming) -> Result<Answer, Refusal> {
    check_digest(digest)?;
    let had = server.context.sources.find(digest).is_some();
    let stored = match had {
        true => Ok(()),
        false => store(server, digest, &mut body).await,
    };
    // An answer while the client still sends could be lost with the connection.
    let rest = Limited::new(body, DRAIN);
    let _ = timeout(UPLOAD_PATIENCE, drain(rest)).await;
    stored?;
    Ok(empty(if had { StatusCode::OK } else { StatusCode::CREATED }))
}

async fn drain(mut rest: Limited<Incoming>) {
    while let Some(Ok(_)) = rest.frame().await {}
}

async fn store(server: &Arc<Server>, digest: &str, body: &mut Incoming) -> Result<(), Refusal> {
    let (context, digest) = (server.context.clone(), digest.to_owned());
    let (pieces, mut receiver) = mpsc::channel::<Bytes>(AHEAD);
    // None: the body broke off.
    let (whole, is_whole) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::task::spawn_blocking(move || {
        let mut upload = context.sources.upload(&digest)?;
        while let Some(piece) = receiver.blocking_recv() {
            upload.write(&piece)?;
        }
        match is_whole.blocking_recv() {
            Ok(()) => upload.finish(),
            Err(_) => Err(SourceError::BrokenOff),
        }
    });
    loop {
        match timeout(UPLOAD_PATIENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let Ok(piece) = frame.into_data() else { continue };
                // Closed: writing has failed, and says why below.
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => {
                let _ = whole.send(());
                break;
            }
            Ok(Some(Err(_))) | Err(_) => break,
        }
    }
    drop(pieces);
    writing.await.map_err(std::io::Error::other)??;
    Ok(())
}

/// Begins the execution even if the client goes away meanwhile.
async fn run_detached(
    workload: Arc<Workload>,
    execution: ExecutionId,
    request: ExecRequest,
) -> Result<crate::execution::Transcript, Refusal> {
    let started = tokio::spawn(async move { workload.executions.start(&workload, execution, request).await });
    started.await.map_err(std::io::Error::other)?
}

fn parse_deployment(id: &str) -> Result<DeploymentId, Refusal> {
    id.parse().map_err(|error: model::IdError| Refusal::invalid(error.to_string()))
}

fn parse_execution(id: &str) -> Result<ExecutionId, Refusal> {
    id.parse().map_err(|error: model::IdError| Refusal::invalid(error.to_string()))
}

fn unknown(id: &str) -> Refusal {
    Refusal::not_found(format!("{id} is not on this machine"))
}

pub fn workload(server: &Server, id: &str) -> Result<Arc<Workload>, Refusal> {
    server.workloads.find(parse_deployment(id)?).ok_or_else(|| unknown(id))
}

fn number(headers: &HeaderMap, name: &str) -> Result<u64, Refusal> {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    value.ok_or_else(|| Refusal::invalid(format!("the header {name} must be there and be a whole number")))
}

/// The fence of a changing request; it must be about the deployment of the path.
fn fence(id: &str, headers: &HeaderMap) -> Result<Fence, Refusal> {
    let deployment = parse_deployment(id)?;
    if headers.get(header::DEPLOYMENT).is_none_or(|given| given.as_bytes() != id.as_bytes()) {
        return Err(Refusal::invalid(format!(
            "the header {} must name the deployment of the path, {id}",
            header::DEPLOYMENT
        )));
    }
    Ok(Fence {
        deployment,
        generation: number(headers, header::GENERATION)?,
        incarnation: number(headers, header::INCARNATION)?,
        operation: number(headers, header::OPERATION)?,
    })
}

/// Where the request names an incarnation, it must be the present one.
pub fn check_incarnation(workload: &Workload, headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(header::INCARNATION) {
        return Ok(());
    }
    let (meant, present) = (number(headers, header::INCARNATION)?, workload.record().incarnation);
    if meant == present {
        return Ok(());
    }
    Err(Refusal::superseded(format!(
        "incarnation {meant} of {} is meant, but {present} is the present one",
        workload.id
    )))
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = Limited::new(request.into_body(), MAX_JSON).collect();
    let body =
        timeout(JSON_PATIENCE, body).await.map_err(|_| Refusal::invalid("the body didn't come in time"))?;
    let body =
        body.map_err(|_| Refusal::invalid(format!("the body broke off or is longer than {MAX_JSON} bytes")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Refusal::invalid(format!("the body: {error}")))
}

fn parameter<T: std::str::FromStr>(query: &str, name: &str) -> Result<Option<T>, Refusal> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(key, _)| *key == name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| Refusal::invalid(format!("the query's {name}={value} can't be read")))
}

pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = status;
    answer
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(Full::from(body).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    json(refusal.status, &refusal.problem())
}

/// A body of pieces that a task sends for as long as somebody reads.
fn stream<F: Future<Output = ()> + Send + 'static>(
    content_type: &'static str,
    send: impl FnOnce(mpsc::Sender<Bytes>) -> F,
) -> Answer {
    let (to, from) = mpsc::channel(AHEAD);
    tokio::spawn(send(to));
    let pieces = futures_util::stream::unfold(from, |mut from| async move {
        let piece = from.recv().await?;
        Some((piece, from))
    });
    let body = StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))));
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
