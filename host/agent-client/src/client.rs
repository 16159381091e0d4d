//! Requests to one machine's daemon, over a small pool of connections.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use agent_api::{AgentStatus, DaemonHealth, Problem, header, path};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use secrecy::SecretSlice;
use std::sync::Mutex;

use crate::connection::Target;
use crate::error::AgentError;
use crate::handshake::{self, Proofs};
use crate::identity::HostIdentity;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type WireBody = UnsyncBoxBody<Bytes, BoxError>;

/// Where a request names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections kept for the next request. Control requests come one by one, mostly.
const MAX_IDLE: usize = 4;
/// Shorter than the daemon's own patience, so that it is the host who closes.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// The longest problem that is read.
const MAX_PROBLEM: usize = 64 * 1024;
/// The longest status that is read.
const MAX_STATUS: usize = 16 * 1024 * 1024;

/// A machine's daemon and what proves it.
#[derive(Debug, Clone)]
pub struct AgentEndpoint {
    /// `mach_…`.
    pub machine_id: String,
    /// An IP address or a DNS name.
    pub address: String,
    pub port: u16,
    /// The key that machine and host share; 32 bytes.
    pub shared_key: SecretSlice<u8>,
    /// Lower-case hex SHA-256 of the daemon's certificate (DER).
    pub certificate_sha256: String,
}

/// What a request carries.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Bytes(Bytes),
    /// Sent in chunks, as it comes.
    Stream(Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>),
}

impl Body {
    /// A body that is read while it is sent.
    pub fn stream(stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }

    fn into_wire(self) -> WireBody {
        match self {
            Self::Empty => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Self::Bytes(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Self::Stream(stream) => {
                StreamBody::new(stream.map_ok(Frame::data).map_err(BoxError::from)).boxed_unsync()
            }
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Bytes(_) => "Bytes",
            Self::Stream(_) => "Stream",
        })
    }
}

/// A request to the daemon.
#[derive(Debug, Default)]
pub struct Request {
    pub method: Method,
    /// With its query, beginning with `/`: see [`agent_api::path`].
    pub path: String,
    /// Whose doing it is; required by what changes something. Becomes the four fence headers.
    pub fence: Option<model::Fence>,
    /// Further headers. Those of the fence, of authentication and of the connection are not taken from
    /// here.
    pub headers: HeaderMap,
    pub body: Body,
    /// Until the answer's head has come, the body's sending included. None: 30 s.
    pub timeout: Option<Duration>,
}

/// The daemon's answer, whatever its status, except 401.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: ResponseBody,
}

impl Response {
    /// The answer itself where it is a success, else what the daemon said.
    ///
    /// # Errors
    /// [`AgentError::Refused`] for any status outside 200 to 299; those of reading its body.
    pub async fn accepted(self) -> Result<Self, AgentError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let status = self.status;
        let body = self.body.collect(MAX_PROBLEM).await?;
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            code: agent_api::error_code::INTERNAL.to_owned(),
            message: String::from_utf8_lossy(&body).into_owned(),
        });
        Err(AgentError::Refused { status, problem })
    }

    /// The whole body of a success as JSON, at most `cap` bytes.
    ///
    /// # Errors
    /// As [`accepted`](Self::accepted) and [`ResponseBody::collect`]; [`AgentError::Protocol`] where it
    /// is not such JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(self, cap: usize) -> Result<T, AgentError> {
        let accepted = self.accepted().await?;
        let inner = accepted.body.inner.clone();
        let body = accepted.body.collect(cap).await?;
        serde_json::from_slice(&body)
            .map_err(|error| inner.target.protocol(format!("its answer can't be read: {error}")))
    }
}

/// Bytes of an answer as they come. Dropped before its end, the connection is closed.
pub struct ResponseBody {
    incoming: Incoming,
    /// Given back to the pool at the body's end.
    connection: Option<Connection>,
    inner: Arc<Inner>,
    /// How long collecting may take.
    patience: Duration,
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl ResponseBody {
    /// The whole body, at most `cap` bytes, within the request's time-out anew.
    ///
    /// # Errors
    /// [`AgentError::Protocol`] where it is longer than `cap`; [`AgentError::Timeout`];
    /// [`AgentError::Interrupted`].
    pub async fn collect(mut self, cap: usize) -> Result<Bytes, AgentError> {
        let inner = self.inner.clone();
        let patience = self.patience;
        let collect = async move {
            let mut all = Vec::new();
            while let Some(chunk) = self.next().await {
                let chunk = chunk?;
                if all.len() + chunk.len() > cap {
                    return Err(self.inner.target.protocol(format!("its answer is longer than {cap} bytes")));
                }
                all.extend_from_slice(&chunk);
            }
            Ok(Bytes::from(all))
        };
        match tokio::time::timeout(patience, collect).await {
            Ok(collected) => collected,
            Err(_) => Err(inner.target.timeout("reading its answer", patience)),
        }
    }
}

impl Stream for ResponseBody {
    type Item = Result<Bytes, AgentError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => {
                    self.connection = None;
                    Some(Err(self.inner.target.exchange_error(error)))
                }
                None => {
                    if let Some(connection) = self.connection.take() {
                        self.inner.clone().give_back(connection);
                    }
                    None
                }
            });
        }
    }
}

/// Talks to one machine's daemon. Clones share its connections.
#[derive(Clone)]
pub struct AgentClient {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient").field("endpoint", &self.inner.target.endpoint).finish()
    }
}

pub(crate) struct Inner {
    pub target: Target,
    idle: Mutex<Vec<Idle>>,
}

struct Connection {
    sender: SendRequest<WireBody>,
    /// Until the first answer has been checked.
    proofs: Option<Proofs>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// How an exchange failed.
enum Failure {
    /// No byte of it was written: the request is given back.
    Unsent(http::Request<WireBody>),
    Error(AgentError),
}

impl AgentClient {
    /// For the daemon at this endpoint. Dials nothing yet.
    #[must_use]
    pub fn new(host: &HostIdentity, endpoint: AgentEndpoint) -> Self {
        let tls = handshake::client_config(host.certificate(), &endpoint.certificate_sha256);
        Self { inner: Arc::new(Inner { target: Target::new(endpoint, tls), idle: Mutex::default() }) }
    }

    /// Whom it talks to.
    #[must_use]
    pub fn endpoint(&self) -> &AgentEndpoint {
        &self.inner.target.endpoint
    }

    /// Sends one request; the answer's body is read as it comes. Whatever status the daemon gives is an
    /// answer here, except 401: see [`Response::accepted`].
    ///
    /// # Errors
    /// [`AgentError`], but not `Refused`. After `Timeout` and `Interrupted` it is not known whether the
    /// daemon has acted: ask, or send the same operation again.
    pub async fn send(&self, request: Request) -> Result<Response, AgentError> {
        let patience = request.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let request = self.inner.wire_request(request)?;
        match tokio::time::timeout(patience, self.inner.clone().send(request, patience)).await {
            Ok(sent) => sent,
            Err(_) => Err(self.inner.target.timeout("waiting for its answer", patience)),
        }
    }

    /// How the daemon is.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`AgentError::Refused`].
    pub async fn health(&self) -> Result<DaemonHealth, AgentError> {
        self.get(path::HEALTH, Duration::from_secs(5)).await
    }

    /// The machine and all its workloads.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`AgentError::Refused`].
    pub async fn status(&self) -> Result<AgentStatus, AgentError> {
        self.get(path::STATUS, DEFAULT_TIMEOUT).await
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, AgentError> {
        let request = Request { path: path.to_owned(), timeout: Some(timeout), ..Request::default() };
        self.send(request).await?.json(MAX_STATUS).await
    }
}

impl Inner {
    fn wire_request(&self, request: Request) -> Result<http::Request<WireBody>, AgentError> {
        let invalid = |reason: String| AgentError::InvalidRequest { reason };
        if !request.path.starts_with('/') {
            return Err(invalid(format!("the path {:?} doesn't begin with `/`", request.path)));
        }
        let mut wire = http::Request::builder()
            .method(request.method)
            .uri(&request.path)
            .body(request.body.into_wire())
            .map_err(|error| invalid(format!("{:?}: {error}", request.path)))?;
        let headers = wire.headers_mut();
        *headers = request.headers;
        for name in RESERVED {
            headers.remove(name);
        }
        headers.insert(http::header::HOST, HeaderValue::from_static("hythe-agent"));
        if let Some(fence) = request.fence {
            let mut set = |name: &'static str, value: String| -> Result<(), AgentError> {
                let value = HeaderValue::try_from(value).map_err(|error| invalid(error.to_string()))?;
                headers.insert(HeaderName::from_static(name), value);
                Ok(())
            };
            set(header::DEPLOYMENT, fence.deployment.to_string())?;
            set(header::GENERATION, fence.generation.to_string())?;
            set(header::INCARNATION, fence.incarnation.to_string())?;
            set(header::OPERATION, fence.operation.to_string())?;
        }
        Ok(wire)
    }

    async fn send(
        self: Arc<Self>,
        mut request: http::Request<WireBody>,
        patience: Duration,
    ) -> Result<Response, AgentError> {
        while let Some(connection) = self.take_idle() {
            match self.clone().exchange(connection, request, patience).await {
                Ok(response) => return Ok(response),
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Unsent(unsent)) => request = unsent,
            }
        }
        let connection = self.open().await?;
        match self.clone().exchange(connection, request, patience).await {
            Ok(response) => Ok(response),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Unsent(_)) => {
                Err(self.target.interrupted("the daemon closed the connection at once"))
            }
        }
    }

    async fn open(&self) -> Result<Connection, AgentError> {
        let (stream, proofs) = self.target.dial().await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.target.exchange_error(error))?;
        let machine = self.target.endpoint.machine_id.clone();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(machine.id = machine, error = %error, "connection to a daemon ended");
            }
        });
        Ok(Connection { sender, proofs: Some(proofs) })
    }

    async fn exchange(
        self: Arc<Self>,
        mut connection: Connection,
        mut request: http::Request<WireBody>,
        patience: Duration,
    ) -> Result<Response, Failure> {
        request.headers_mut().remove(http::header::AUTHORIZATION);
        if let Some(proofs) = &connection.proofs {
            let mut value = HeaderValue::try_from(proofs.authorization())
                .map_err(|_| Failure::Error(self.target.protocol("its machine id is no text".to_owned())))?;
            value.set_sensitive(true);
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => {
                return Err(match failed.take_message() {
                    Some(unsent) if !failed.error().is_user() => Failure::Unsent(unsent),
                    _ => Failure::Error(self.target.exchange_error(failed.into_error())),
                });
            }
        };
        let (head, incoming) = response.into_parts();
        let proven = connection.check(&head).map_err(|reason| self.target.unauthenticated(reason));
        let at_end = incoming.is_end_stream();
        let mut body = ResponseBody { incoming, connection: Some(connection), inner: self.clone(), patience };
        if head.status == StatusCode::UNAUTHORIZED {
            body.connection = None;
            let problem = body.collect(MAX_PROBLEM).await.ok();
            let problem = problem.and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
            let reason = problem.map_or_else(|| "it answered 401".to_owned(), |problem| problem.message);
            return Err(Failure::Error(self.target.unauthenticated(reason)));
        }
        proven.map_err(Failure::Error)?;
        if at_end && let Some(connection) = body.connection.take() {
            self.give_back(connection);
        }
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_FOR && idle.connection.sender.is_ready());
        idle.pop().map(|idle| idle.connection)
    }

    /// Once the connection can take another request, it waits for one.
    fn give_back(self: Arc<Self>, mut connection: Connection) {
        tokio::spawn(async move {
            // Not ready while the daemon has answered before it read the whole request.
            let ready = tokio::time::timeout(Duration::from_secs(1), connection.sender.ready());
            if !matches!(ready.await, Ok(Ok(()))) {
                return;
            }
            let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if idle.len() < MAX_IDLE {
                idle.push(Idle { connection, since: Instant::now() });
            }
        });
    }
}

impl Connection {
    fn check(&mut self, head: &http::response::Parts) -> Result<(), String> {
        let Some(proofs) = self.proofs.take() else { return Ok(()) };
        match head.headers.get(header::PROOF) {
            Some(given) if proofs.proves_daemon(given.as_bytes()) => Ok(()),
            Some(_) => {
                Err("the daemon's proof is wrong: it doesn't have this machine's shared key".to_owned())
            }
            None => Err("the daemon gave no proof that it has this machine's shared key".to_owned()),
        }
    }
}

/// Headers that are the client's own to set, or mean something to the connection alone (RFC 9110,
/// section 7.6.1).
const RESERVED: [&str; 15] = [
    header::AUTHORIZATION,
    header::PROOF,
    header::DEPLOYMENT,
    header::GENERATION,
    header::INCARNATION,
    header::OPERATION,
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "content-length",
    "te",
    "trailer",
    "upgrade",
];
