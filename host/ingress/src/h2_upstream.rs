//! Apps that speak HTTP/2 in cleartext (h2c, by prior knowledge), gRPC servers among them: a few connections
//! for each target and worker, shared by all requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, Uri, header, uri};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::answer::Problem;
use crate::body::RequestBody;
use crate::exchange::{Answered, ExchangeError};
use crate::forward::{self, StateChanged};
use crate::h2_stream::{STREAM_BUFFER, send_body};
use crate::headers;
use crate::inflow::Inflow;
use crate::request::Job;
use crate::route::State;
use crate::slot::{Slot, Target};
use crate::upstream;
use crate::watch::{Order, Phase};

/// For one stream from an app. Ours to an app is for the app to say.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Ticks without a request after which a connection is closed: these are few, and dear to open.
const LONGEST_IDLE: u32 = 600;

/// Connections of one worker, by target.
#[derive(Default)]
pub(crate) struct H2Pool {
    targets: HashMap<u64, Rc<H2Target>>,
}

#[derive(Default)]
struct H2Target {
    connections: RefCell<Vec<Rc<H2Connection>>>,
    /// Somebody opens one.
    opening: Cell<bool>,
    /// Rings when that has ended.
    opened: Notify,
}

pub(crate) struct H2Connection {
    send: SendRequest<Bytes>,
    closed: Rc<Cell<bool>>,
    last_used: Cell<u32>,
    /// Streams in use.
    streams: Cell<usize>,
    target: Arc<Target>,
}

impl H2Connection {
    fn has_room(&self) -> bool {
        !self.closed.get() && self.streams.get() < self.send.current_max_send_streams()
    }
}

/// One stream in use, until it is dropped.
pub(crate) struct InUse(Rc<H2Connection>);

impl InUse {
    fn new(connection: Rc<H2Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(connection)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl H2Pool {
    fn target(&mut self, id: u64) -> Rc<H2Target> {
        Rc::clone(self.targets.entry(id).or_default())
    }

    /// Once a tick: lets go of what has been idle for long or was closed.
    pub(crate) fn sweep(&mut self, now: u32) {
        self.targets.retain(|_, target| {
            let mut connections = target.connections.borrow_mut();
            connections.retain(|connection| {
                let idle = connection.streams.get() == 0
                    && now.saturating_sub(connection.last_used.get()) >= LONGEST_IDLE;
                !connection.closed.get() && !idle
            });
            !connections.is_empty() || target.opening.get()
        });
    }

    pub(crate) fn clear(&mut self) {
        self.targets.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

/// Ends the turn of the one who opens a connection, however it ends.
struct Opening(Rc<H2Target>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.opened.notify_waiters();
    }
}

/// A connection with room for one more stream.
pub(crate) async fn connection(
    job: &Job,
    slot: &Arc<Slot>,
    state: &Arc<State>,
    target: Arc<Target>,
    deadline: Instant,
) -> Result<Result<InUse, StateChanged>, Problem> {
    let worker = &job.client.worker;
    let pooled = worker.h2_pool.borrow_mut().target(target.id);
    loop {
        let opened = pooled.opened.notified();
        let ready = pooled.connections.borrow().iter().find(|connection| connection.has_room()).cloned();
        if let Some(connection) = ready {
            connection.last_used.set(worker.clock.tick());
            return Ok(Ok(InUse::new(connection)));
        }
        if pooled.opening.replace(true) {
            opened.await;
            continue;
        }
        let opening = Opening(Rc::clone(&pooled));
        let within = worker.shared.config.connect_timeout;
        let opened =
            forward::connect(job, slot, state, target, deadline, async |target| open(target, within).await);
        let (connection, target) = match opened.await? {
            Ok(opened) => opened,
            Err(changed) => return Ok(Err(changed)),
        };
        let (send, closed) = connection;
        let last_used = Cell::new(worker.clock.tick());
        let connection = Rc::new(H2Connection {
            send,
            closed,
            last_used,
            streams: Cell::new(0),
            target: Arc::clone(&target),
        });
        // Connecting may have led elsewhere.
        let pooled = worker.h2_pool.borrow_mut().target(target.id);
        pooled.connections.borrow_mut().push(Rc::clone(&connection));
        let connection = InUse::new(connection);
        drop(opening);
        return Ok(Ok(connection));
    }
}

async fn open(target: &Target, within: Duration) -> std::io::Result<(SendRequest<Bytes>, Rc<Cell<bool>>)> {
    let io = upstream::dial(&target.lease.endpoint, within).await?;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(STREAM_BUFFER);
    let handshake = builder.handshake::<_, Bytes>(io);
    let (send, connection) = tokio::time::timeout(within, handshake)
        .await
        .map_err(|_| std::io::ErrorKind::TimedOut)?
        .map_err(std::io::Error::other)?;
    let closed = Rc::new(Cell::new(false));
    let ended = Rc::clone(&closed);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of h2c to an upstream broke");
        }
        ended.set(true);
    });
    Ok((send, closed))
}

/// Ends the upload when the request has failed.
struct Uploading(Option<AbortHandle>);

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// One request on a connection, until its answer's head is there.
pub(crate) async fn exchange(
    job: &Job,
    in_use: InUse,
    mut request: Request<RequestBody>,
) -> Result<Answered, ExchangeError> {
    let client = &job.client;
    let connection = Rc::clone(&in_use.0);
    client.watch.enter(Phase::Upstream);
    let lease = &connection.target.lease;
    headers::set_lease_headers(request.headers_mut(), lease.host_header.as_ref(), &lease.set_headers);
    let has_body = job.upload.as_ref().is_some_and(|upload| !upload.has_ended());
    // What has no body may be sent again where the app says that it did not look at it.
    let mut backup = (!has_body).then(|| copy(&request));
    let (head, body) = request.into_parts();
    let broken = |error: h2::Error| ExchangeError::Broken { error: error.into(), reused: true };
    let mut send = connection.send.clone();
    let answer =
        poll_fn(|cx| send.poll_ready(cx)).await.and_then(|()| send.send_request(pseudo(head), !has_body));
    let (mut answer, stream) = match answer {
        Ok(sent) => sent,
        Err(error) => {
            connection.closed.set(connection.closed.get() || error.is_io() || error.is_go_away());
            return Err(unsent(backup.take(), &error).unwrap_or_else(|| broken(error)));
        }
    };
    let mut uploading = Uploading(None);
    if has_body {
        let task = tokio::task::spawn_local(async move {
            let mut stream = stream;
            if let Err(error) = send_body(body, &mut stream, |_| ()).await {
                tracing::debug!(%error, "a request's body could not be passed on");
            }
        });
        uploading.0 = Some(task.abort_handle());
    }
    let answered = poll_fn(|cx| {
        client.watch.set_task(cx.waker());
        match client.watch.order() {
            Order::AnswerLate => {
                client.watch.obeyed(Order::AnswerLate);
                return Poll::Ready(Err(ExchangeError::AnswerLate));
            }
            Order::BodyLate => {
                client.watch.obeyed(Order::BodyLate);
                return Poll::Ready(Err(ExchangeError::BodyLate));
            }
            _ => {}
        }
        while let Poll::Ready(Some(Ok(early))) = answer.poll_informational(cx) {
            if early.status() == StatusCode::CONTINUE {
                if let Some(upload) = &job.upload {
                    upload.release();
                }
            } else {
                let (head, ()) = early.into_parts();
                client.tell(head.status, head.headers);
            }
        }
        match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
            Poll::Ready(Err(error)) => {
                let lost = error.is_io() || error.is_go_away();
                connection.closed.set(connection.closed.get() || lost);
                Poll::Ready(Err(unsent(backup.take(), &error).unwrap_or_else(|| broken(error))))
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match answered {
        Ok(answer) => {
            // The body goes on by itself.
            uploading.0 = None;
            Ok(Answered { response: inflow(answer, in_use), upstream: None })
        }
        Err(error) => {
            if matches!(error, ExchangeError::AnswerLate) {
                // It may be gone without a word: the next request gets another.
                connection.closed.set(true);
            }
            Err(error)
        }
    }
}

type Copied = (http::Method, Uri, http::HeaderMap);

fn copy(request: &Request<RequestBody>) -> Copied {
    (request.method().clone(), request.uri().clone(), request.headers().clone())
}

/// The request again, where the app did not process it (RFC 9113, section 8.7).
fn unsent(backup: Option<Copied>, error: &h2::Error) -> Option<ExchangeError> {
    let (method, uri, headers) = backup?;
    let unprocessed = error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR));
    unprocessed.then(|| {
        let mut request = Request::new(RequestBody::none());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        ExchangeError::Unsent(Box::new(request))
    })
}

/// The head as HTTP/2 has it: the host in `:authority`, nothing about the connection.
fn pseudo(mut head: http::request::Parts) -> Request<()> {
    let authority = head.headers.remove(header::HOST);
    let authority = authority.as_ref().and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        head.headers.remove(name);
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = authority.or_else(|| Some(uri::Authority::from_static("localhost")));
    parts.path_and_query = match head.uri.path_and_query() {
        Some(path) => Some(path.clone()),
        None => Some(uri::PathAndQuery::from_static("/")),
    };
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.version_mut() = http::Version::HTTP_2;
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.headers_mut() = head.headers;
    request
}

fn inflow(answer: Response<RecvStream>, in_use: InUse) -> Response<Inflow> {
    let length = headers::content_length(answer.headers());
    answer.map(|stream| Inflow::h2(stream, length, Some(in_use)))
}
