//! Clients that speak HTTP/2: one task for the connection, one for each stream. A stream is served as a
//! request of HTTP/1.1 is; only how it is read and answered differs.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;

use crate::answer::{Code, Problem};
use crate::client_io::ClientIo;
use crate::h2_stream::{H2Io, STREAM_BUFFER, send_body};
use crate::headers;
use crate::inflow::Inflow;
use crate::interim::Interim;
use crate::request::{Answer, Client, Conn, Serving};
use crate::watch::{Order, Phase, Watch, moved};
use crate::websocket;
use crate::worker::Worker;

/// What a client may send on one stream, and on all, before it is read.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, conn: Rc<Conn>, io: ClientIo, watch: Rc<Watch>) {
    let config = &worker.shared.config;
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(STREAM_BUFFER)
        .enable_connect_protocol();
    watch.multiplexes();
    let mut handshake = pin!(builder.handshake::<_, Bytes>(io));
    let connection = poll_fn(|cx| {
        watch.set_task(cx.waker());
        if watch.order() == Order::Cut { Poll::Ready(None) } else { handshake.as_mut().poll(cx).map(Some) }
    })
    .await;
    let Some(Ok(mut connection)) = connection else { return };
    watch.enter(Phase::Idle);
    let streams = Rc::new(());
    let mut leaving = false;
    loop {
        let next = poll_fn(|cx| {
            watch.set_task(cx.waker());
            match watch.order() {
                Order::Drain => watch.obeyed(Order::Drain),
                // Idle for too long: said before it is done, so that no request is lost.
                Order::Cut if watch.phase() == Phase::Idle && !leaving => {}
                Order::Cut => return Poll::Ready(Next::Cut),
                _ => {
                    let next = connection.poll_accept(cx);
                    // Of all that is busy, only being stuck is looked for here: streams have eyes of their own.
                    let phase = if Rc::strong_count(&streams) > 1 { Phase::Waiting } else { Phase::Idle };
                    if watch.phase() != phase {
                        watch.enter(phase);
                    }
                    return next.map(Next::Stream);
                }
            }
            Poll::Ready(Next::Leave)
        })
        .await;
        match next {
            Next::Leave => {
                leaving = true;
                watch.forgive();
                connection.graceful_shutdown();
            }
            Next::Cut => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                return;
            }
            Next::Stream(Some(Ok((request, respond)))) => {
                watch.enter(Phase::Waiting);
                let stream = Stream::new(&worker, &conn, respond);
                let (alive, connection) = (Rc::clone(&streams), Rc::clone(&watch));
                tokio::task::spawn_local(async move {
                    stream.serve(request).await;
                    drop(alive);
                    // The connection is idle from now on, if this was the last.
                    connection.wake();
                });
            }
            Next::Stream(Some(Err(error))) => {
                tracing::debug!(client.address = %conn.peer, %error, "a connection of HTTP/2 broke");
                finish(&mut connection).await;
                return;
            }
            Next::Stream(None) => return,
        }
    }
}

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Next {
    Stream(Option<Result<Asked, h2::Error>>),
    Leave,
    Cut,
}

/// Gets the last words out: why the connection ends.
async fn finish(connection: &mut Connection<ClientIo, Bytes>) {
    let closed = poll_fn(|cx| connection.poll_closed(cx));
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), closed).await;
}

/// One stream.
struct Stream {
    client: Rc<Client>,
}

impl Stream {
    fn new(worker: &Rc<Worker>, conn: &Rc<Conn>, respond: SendResponse<Bytes>) -> Self {
        let watch = Rc::new(Watch::new(Rc::clone(&worker.clock)));
        watch.enter(Phase::Waiting);
        worker.watch(&watch);
        Self { client: Rc::new(Client::new(Rc::clone(conn), watch, Interim::h2(respond))) }
    }

    async fn serve(&self, request: Request<RecvStream>) {
        let (mut head, receive) = request.into_parts();
        let client = &self.client;
        let websocket = match read_head(&mut head) {
            Ok(websocket) => websocket,
            Err(problem) => {
                let answer = client.refuse_early(problem, &head);
                return self.answer(answer, None).await;
            }
        };
        let length = headers::content_length(&head.headers);
        if length.is_none() && websocket.is_none() && !receive.is_end_stream() {
            // Over HTTP/1.1 a body without a length needs to say that it is there.
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let (body, tunnel) = match websocket {
            // What comes on the stream is for the tunnel.
            Some(_) => (None, Some(receive)),
            None => (Some(Inflow::h2(receive, length, None)), None),
        };
        let Some(mut answer) = self.wait(client.begin(head, body)).await else { return };
        if let Some(key) = websocket
            && answer.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            if !websocket::accepts(&key, answer.headers()) {
                let problem = Problem::new(
                    Code::UpstreamFailed,
                    "the deployment answered a WebSocket's handshake with another key",
                );
                client.tunnel.take();
                answer = client.refuse_late(problem);
            } else {
                *answer.status_mut() = StatusCode::OK;
                for name in [header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
                    answer.headers_mut().remove(name);
                }
            }
        }
        self.answer(answer, tunnel).await;
    }

    /// The answer; none where the client has given up, or the grace is over.
    async fn wait(&self, serving: Serving) -> Option<Answer> {
        let mut serving = pin!(serving);
        let watch = &self.client.watch;
        poll_fn(|cx| {
            watch.set_task(cx.waker());
            match watch.order() {
                Order::Cut => return Poll::Ready(None),
                Order::Drain => watch.obeyed(Order::Drain),
                _ => {}
            }
            if let Some(respond) = self.client.interim.respond()
                && respond.borrow_mut().poll_reset(cx).is_ready()
            {
                return Poll::Ready(None);
            }
            serving.as_mut().poll(cx).map(Some)
        })
        .await
    }

    async fn answer(&self, answer: Answer, receive: Option<RecvStream>) {
        let client = &self.client;
        let Some(respond) = client.interim.respond() else { return };
        let (mut head, body) = answer.into_parts();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            head.headers.remove(name);
        }
        let ends = body.is_end_stream();
        let tunnel = client.tunnel.take();
        let head = Response::from_parts(head, ());
        let sent = respond.borrow_mut().send_response(head, ends && tunnel.is_none());
        let mut stream = match sent {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(client.address = %client.conn.peer, %error, "an answer could not be sent");
                return;
            }
        };
        let watch = &client.watch;
        if let (Some(tunnel), Some(receive)) = (tunnel, receive) {
            watch.enter(Phase::Tunnel);
            let mut io = Tunnelled { io: H2Io::new(stream, receive), watch };
            let cut = {
                let mut running = pin!(tunnel.run(&mut io, &client.worker.scratch, &client.worker.clock));
                poll_fn(|cx| {
                    watch.set_task(cx.waker());
                    if watch.order() == Order::Cut {
                        return Poll::Ready(true);
                    }
                    watch.obeyed(Order::Drain);
                    running.as_mut().poll(cx).map(|()| false)
                })
                .await
            };
            if cut {
                io.io.reset();
            }
            return;
        }
        if ends {
            return;
        }
        let outcome = {
            let mut sending = pin!(send_body(body, &mut stream, |piece| watch.has_written(piece)));
            poll_fn(|cx| {
                watch.set_task(cx.waker());
                if watch.order() == Order::Cut {
                    return Poll::Ready(None);
                }
                watch.obeyed(Order::Drain);
                sending.as_mut().poll(cx).map(Some)
            })
            .await
        };
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::debug!(client.address = %client.conn.peer, %error, "an answer broke off");
            }
            None => stream.send_reset(Reason::CANCEL),
        }
    }
}

/// A tunnel's bytes count as activity of its stream.
struct Tunnelled<'a> {
    io: H2Io,
    watch: &'a Watch,
}

impl tokio::io::AsyncRead for Tunnelled<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.watch.has_read();
        }
        read
    }
}

impl tokio::io::AsyncWrite for Tunnelled<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch.has_written(moved(&written));
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Brings the head into the form of HTTP/1.1, which all rules are about. Gives the key of a WebSocket's
/// handshake, where the stream is to become one (RFC 8441).
fn read_head(head: &mut Parts) -> Result<Option<HeaderValue>, Problem> {
    let invalid = |message: &str| Problem::new(Code::InvalidRequest, message);
    if !matches!(head.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(invalid("the request's :scheme is neither http nor https"));
    }
    if let Some(authority) = head.uri.authority() {
        // `host` may repeat `:authority`, and may not differ from it (RFC 9113, section 8.3.1).
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
        if !hosts.next().is_none_or(same) || hosts.next().is_some() {
            return Err(Problem::new(
                Code::InvalidHostname,
                "the request's host differs from its :authority",
            ));
        }
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Problem::new(Code::InvalidHostname, "the request's :authority is no host"))?;
        head.headers.insert(header::HOST, host);
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if head.headers.values().any(|value| blank(value.as_bytes().first()) || blank(value.as_bytes().last())) {
        // RFC 9113, section 8.2.1: malformed. HTTP/1.1 would make another value of it.
        return Err(invalid("a field's value begins or ends with white space"));
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if lengths.next().is_some() && lengths.next().is_some() {
        return Err(invalid("the request says more than once how long its body is"));
    }
    join_cookies(&mut head.headers);
    head.version = Version::HTTP_2;
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    if head.method == Method::CONNECT && protocol.is_none() {
        // Refused with the rest of its kind.
        return Ok(None);
    }
    let is_path = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    if !is_path {
        return Err(invalid("the request's :path must begin with `/`"));
    }
    head.uri = path.parse().map_err(|_| invalid("the request's :path is no path"))?;
    let Some(protocol) = protocol else { return Ok(None) };
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(Problem::new(
            Code::NotImplemented,
            "the only protocol that an extended CONNECT may ask for is websocket",
        ));
    }
    let key = websocket::key();
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    Ok(Some(key))
}

/// HTTP/2 may send cookies one by one; HTTP/1.1 has one line of them (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (all.next(), all.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}
