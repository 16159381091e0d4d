//! HTTP/2: from clients, to apps, and both at once, as gRPC has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use ingress::{Endpoint, Lease};
use model::Scheme;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::origin::{HELLO, Origin, listen};
use crate::world::{World, within};

/// A client by prior knowledge.
async fn connect(world: &World) -> SendRequest<Bytes> {
    let stream = within(TcpStream::connect(world.address)).await.unwrap();
    let mut builder = h2::client::Builder::new();
    // More than for one stream: else who does not read one reads none.
    builder.initial_window_size(1 << 16).initial_connection_window_size(1 << 20);
    let (send, connection) = within(builder.handshake(stream)).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://shop.localhost{path}")).body(()).unwrap()
}

async fn body(mut stream: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = within(stream.data()).await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, within(stream.trailers()).await.unwrap())
}

async fn ask(send: &mut SendRequest<Bytes>, request: Request<()>) -> (Response<()>, Vec<u8>) {
    let (answer, _) = send.send_request(request, true).unwrap();
    let (head, stream) = within(answer).await.unwrap().into_parts();
    (Response::from_parts(head, ()), body(stream).await.0)
}

/// An app of h2c. Counts its connections.
async fn h2_origin<F, R>(serve: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let address = listen(move |stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        let serve = serve.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(request, respond));
            }
        }
    })
    .await;
    (address, connections)
}

fn deploy_h2c(world: &World, origin: SocketAddr) {
    let shop = world.deploy("shop", origin);
    let mut lease = Lease::new(Endpoint::Tcp(origin), 1);
    lease.scheme = Scheme::H2c;
    world.set_lease(&shop, "web", Ok(lease));
}

#[tokio::test]
async fn requests_share_a_connection_and_reach_apps_of_http_1() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let mut send = connect(&world).await;
    let request = Request::post("http://SHOP.localhost/a?b=c")
        .header("cookie", "one=1")
        .header("cookie", "two=2")
        .header("te", "trailers")
        // HTTP/1.1 passes on those that were announced.
        .header("trailer", "x-sum")
        .body(())
        .unwrap();
    let (answer, mut upload) = send.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"hello"), false).unwrap();
    upload.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "5".parse().unwrap())])).unwrap();
    let (head, stream) = within(answer).await.unwrap().into_parts();
    assert_eq!((head.status, body(stream).await.0.as_slice()), (StatusCode::OK, &b"hello"[..]));
    let seen = origin.last();
    assert_eq!(seen.line(), "POST /a?b=c HTTP/1.1");
    assert_eq!(seen.all("host"), ["shop.localhost"]);
    assert_eq!(seen.all("cookie"), ["one=1; two=2"]);
    assert_eq!(seen.all("te"), ["trailers"]);
    assert_eq!((seen.body.as_slice(), seen.trailers.as_str()), (&b"hello"[..], "x-sum: 5\r\n"));
    let (a, b) = (send.clone(), send.clone());
    let both = futures_util::future::join_all(
        [a, b].map(|mut send| async move { ask(&mut send, get("/")).await.1 }),
    );
    assert_eq!(both.await, [b"hello", b"hello"]);
}

#[tokio::test]
async fn what_has_no_one_meaning_is_refused() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let mut send = connect(&world).await;
    let request = Request::get("http://shop.localhost/").header("host", "other.localhost").body(()).unwrap();
    assert_eq!(ask(&mut send, request).await.0.status(), StatusCode::BAD_REQUEST);
    let request = Request::get("http://shop.localhost/").header("host", "shop.localhost").body(()).unwrap();
    assert_eq!(ask(&mut send, request).await.0.status(), StatusCode::OK);
    let trace = Request::builder().method(Method::TRACE).uri("http://shop.localhost/").body(()).unwrap();
    assert_eq!(ask(&mut send, trace).await.0.status(), StatusCode::METHOD_NOT_ALLOWED);
    let connect = Request::connect("shop.localhost:443").body(()).unwrap();
    assert_eq!(ask(&mut send, connect).await.0.status(), StatusCode::METHOD_NOT_ALLOWED);
    let nobody = Request::get("http://nobody.localhost/").body(()).unwrap();
    let (head, text) = ask(&mut send, nobody).await;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    assert!(String::from_utf8(text).unwrap().contains("project_not_found"));
    assert_eq!(origin.count(), 1);
}

/// Says back all that it gets, while it gets it, then how it went.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut stream = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut out = respond.send_response(head, false).unwrap();
    while let Some(data) = stream.data().await {
        let Ok(data) = data else { return };
        stream.flow_control().release_capacity(data.len()).unwrap();
        out.send_data(data, false).unwrap();
    }
    let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    out.send_trailers(status).unwrap();
}

#[tokio::test]
async fn a_stream_of_grpc_goes_both_ways_and_ends_with_trailers() {
    let world = World::new().await;
    let (origin, connections) = h2_origin(echo).await;
    deploy_h2c(&world, origin);
    let mut send = connect(&world).await;
    for _ in 0..3 {
        let request = Request::post("http://shop.localhost/echo.Echo/Chat")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, mut upload) = send.send_request(request, false).unwrap();
        let mut answer = within(answer).await.unwrap();
        for message in ["one", "two", "three"] {
            upload.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
            // Each comes back before the next is said.
            let back = within(answer.body_mut().data()).await.unwrap().unwrap();
            assert_eq!(back, message);
        }
        upload.send_data(Bytes::new(), true).unwrap();
        let (rest, trailers) = body(answer.into_body()).await;
        assert_eq!((rest.len(), trailers.unwrap()["grpc-status"].as_bytes()), (0, &b"0"[..]));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn grpc_clients_are_told_in_their_own_way() {
    let world = World::new().await;
    let mut send = connect(&world).await;
    let request = Request::post("http://nobody.localhost/a.B/C")
        .header("content-type", "application/grpc+proto")
        .body(())
        .unwrap();
    let (head, _) = ask(&mut send, request).await;
    assert_eq!((head.status(), head.headers()["grpc-status"].as_bytes()), (StatusCode::OK, &b"12"[..]));
    assert_eq!(head.headers()["x-hythe-error"], "project_not_found");
}

#[tokio::test]
async fn clients_of_http_1_reach_apps_of_h2c() {
    let world = World::new().await;
    let (origin, _) = h2_origin(async |request: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
        assert_eq!(request.uri().authority().unwrap(), "shop.localhost");
        assert!(!request.headers().contains_key("host") && !request.headers().contains_key("connection"));
        let forwarded = request.headers()["x-forwarded-for"].clone();
        let (text, _) = body(request.into_body()).await;
        let answer = Response::builder().header("x-saw", forwarded).body(()).unwrap();
        respond.send_response(answer, false).unwrap().send_data(text.into(), true).unwrap();
    })
    .await;
    deploy_h2c(&world, origin);
    for framing in
        ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
    {
        let reply = world.ask(&format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\n{framing}")).await;
        assert_eq!((reply.text().as_str(), reply.all("x-saw")), ("body", vec!["127.0.0.1"]));
    }
}

#[tokio::test]
async fn what_the_app_did_not_look_at_is_sent_again() {
    let world = World::new().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let (origin, _) = h2_origin(move |_: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                respond.send_response(Response::new(()), true).unwrap();
            }
        }
    })
    .await;
    deploy_h2c(&world, origin);
    assert_eq!(world.get("shop.localhost").await.status, 200);
    assert_eq!(refused.load(Ordering::SeqCst), 2);
    // With a body it may have been looked at.
    refused.store(0, Ordering::SeqCst);
    let reply = world.ask("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_failed"));
}

#[tokio::test]
async fn a_client_that_gives_up_ends_its_request_at_the_app() {
    let world = World::new().await;
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let (origin, _) = h2_origin(move |_: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
        let (begun, ended) = (begun.clone(), ended.clone());
        async move {
            begun.send(()).unwrap();
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            ended.send(reset.unwrap()).unwrap();
        }
    })
    .await;
    deploy_h2c(&world, origin);
    let mut send = connect(&world).await;
    let (answer, mut stream) = send.send_request(get("/"), true).unwrap();
    within(begins.recv()).await.unwrap();
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    assert_eq!(within(ends.recv()).await.unwrap(), Reason::CANCEL);
    // The connection is as good as before.
    let gone = ask(&mut send, Request::get("http://nobody.localhost/").body(()).unwrap()).await;
    assert_eq!(gone.0.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_stream_only() {
    const SIZE: usize = 4 << 20;
    let world = World::new().await;
    let origin = listen(async |mut stream: TcpStream| {
        use tokio::io::AsyncReadExt;
        let mut head = [0; 4096];
        while let Ok(read) = stream.read(&mut head).await
            && read > 0
        {
            let head = String::from_utf8_lossy(&head[..read]);
            let size = if head.starts_with("GET /big") { SIZE } else { 5 };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            if stream.write_all(&vec![b'x'; size]).await.is_err() {
                return;
            }
        }
    })
    .await;
    world.deploy("shop", origin);
    let mut send = connect(&world).await;
    let (big, _) = send.send_request(get("/big"), true).unwrap();
    let big = within(big).await.unwrap();
    // Nothing of it is read, and others are served.
    for _ in 0..3 {
        assert_eq!(ask(&mut send, get("/small")).await.1, b"xxxxx");
    }
    assert_eq!(body(big.into_body()).await.0.len(), SIZE);
}

#[tokio::test]
async fn a_websocket_runs_on_a_stream() {
    let world = World::new().await;
    let origin = listen(async |stream: TcpStream| {
        use futures_util::{SinkExt, StreamExt};
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    world.deploy("shop", origin);
    let mut send = connect(&world).await;
    // The server has to say that it takes it.
    while !send.is_extended_connect_protocol_enabled() {
        ask(&mut send, Request::get("http://nobody.localhost/").body(()).unwrap()).await;
    }
    let handshake = |protocol: &'static str| {
        Request::builder()
            .method(Method::CONNECT)
            .uri("http://shop.localhost/socket")
            .header("sec-websocket-version", "13")
            .header("cookie", "session=1")
            .extension(h2::ext::Protocol::from_static(protocol))
            .body(())
            .unwrap()
    };
    let (answer, mut out) = send.send_request(handshake("websocket"), false).unwrap();
    let answer = within(answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("sec-websocket-accept"));
    // "hi", masked with zeros (RFC 6455, section 5.2).
    out.send_data(Bytes::from_static(b"\x81\x82\0\0\0\0hi"), false).unwrap();
    let mut stream = answer.into_body();
    let mut back = Vec::new();
    while back.len() < 4 {
        back.extend_from_slice(&within(stream.data()).await.unwrap().unwrap());
    }
    assert_eq!(back, b"\x81\x02hi");
    assert_eq!(world.routes.active()[0].1.open_upgrades, 1);
    out.send_data(Bytes::from_static(b"\x88\x80\0\0\0\0"), true).unwrap();
    while let Some(data) = within(stream.data()).await {
        data.unwrap();
    }
    // Others than WebSockets are not known.
    let (answer, _) = send.send_request(handshake("connect-udp"), false).unwrap();
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn draining_says_so_and_lets_streams_end() {
    let world = World::new().await;
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let (origin, _) = h2_origin(move |_: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
        let (mut gate, begun) = (gate.clone(), begun.clone());
        async move {
            begun.send(()).unwrap();
            gate.wait_for(|open| *open).await.unwrap();
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    deploy_h2c(&world, origin);
    let mut send = connect(&world).await;
    let (answer, _) = send.send_request(get("/"), true).unwrap();
    within(begins.recv()).await.unwrap();
    let drained = tokio::spawn(world.ingress.drain(std::time::Duration::from_secs(20)));
    // New streams are refused from some moment on.
    loop {
        if within(std::future::poll_fn(|cx| send.poll_ready(cx))).await.is_err() {
            break;
        }
        let Ok((refused, _)) = send.send_request(get("/"), true) else { break };
        tokio::select! {
            refused = refused => { assert!(refused.is_err()); break; }
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
        }
    }
    go_on.send(true).unwrap();
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::OK);
    assert!(within(drained).await.unwrap());
}
