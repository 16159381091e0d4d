//! WebSockets and other changes of protocol.

use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt};
use ingress::Endpoint;
use model::Seen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::origin::{HELLO, Origin, listen};
use crate::world::{Raw, World, within};

const UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Changes to a protocol that says `hi`, then echoes until the client has said all, then says `bye`.
async fn echo() -> std::net::SocketAddr {
    listen(|stream| async move {
        let mut raw = Raw { stream, buffer: Vec::new() };
        let head = String::from_utf8(raw.until(b"\r\n\r\n").await).unwrap();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: echo\r\n"), "{head}");
        raw.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-A: 1\r\n\r\nhi",
        )
        .await;
        let mut piece = vec![0; 4096];
        while let Ok(read @ 1..) = raw.stream.read(&mut piece).await {
            raw.send(&piece[..read]).await;
        }
        raw.send("bye").await;
    })
    .await
}

#[tokio::test]
async fn a_websocket_is_carried_with_its_cookies_and_key() {
    let world = World::new().await;
    let (heads, mut seen) = mpsc::unbounded_channel();
    let address = listen(move |stream| {
        let heads = heads.clone();
        async move {
            #[expect(clippy::result_large_err, reason = "tungstenite's own callback")]
            let record = |request: &Request, response: Response| {
                heads.send(request.headers().clone()).unwrap();
                Ok(response)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, record).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    return;
                }
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let shop = world.deploy("shop", address);
    let mut request = "ws://shop.localhost/hmr?token=1".into_client_request().unwrap();
    request.headers_mut().insert("cookie", "session=1".parse().unwrap());
    request.headers_mut().insert("authorization", "Bearer x".parse().unwrap());
    request.headers_mut().insert("origin", "http://shop.localhost".parse().unwrap());
    let stream = TcpStream::connect(world.address).await.unwrap();
    // The client checks the accept key itself.
    let (mut socket, _) = within(tokio_tungstenite::client_async(request, stream)).await.unwrap();
    let head = seen.recv().await.unwrap();
    assert_eq!(
        (&head["cookie"], &head["authorization"], &head["origin"]),
        (
            &"session=1".parse().unwrap(),
            &"Bearer x".parse().unwrap(),
            &"http://shop.localhost".parse().unwrap()
        )
    );
    assert_eq!(head["x-forwarded-for"], "127.0.0.1");
    let report = world.routes.activity(shop.deployment).unwrap();
    assert_eq!((report.open_requests, report.open_upgrades), (0, 1));
    assert_eq!(report.idle_for(SystemTime::now() + Duration::from_secs(9)), None);
    for text in ["one", "two", &"long".repeat(100_000)] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap().into_text().unwrap(), text);
    }
    // Routes change, the deployment stops and starts anew: this connection lives on.
    let mut next = shop.clone();
    next.seen = Seen::Stopped;
    world.routes.upsert(next.clone());
    (next.incarnation, next.seen) = (2, Seen::Running);
    world.routes.upsert(next);
    world.routes.remove(shop.deployment);
    socket.send(Message::text("still")).await.unwrap();
    assert_eq!(within(socket.next()).await.unwrap().unwrap().into_text().unwrap(), "still");
}

#[tokio::test]
async fn any_protocol_changes_and_each_side_ends_by_itself() {
    let world = World::new().await;
    let shop = world.deploy("shop", echo().await);
    let mut client = world.connect().await;
    client.send(UPGRADE).await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.all("upgrade"), head.all("connection"), head.all("x-a")),
        (101, vec!["echo"], vec!["upgrade"], vec!["1"])
    );
    assert_eq!(client.exactly(2).await, b"hi");
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    client.stream.shutdown().await.unwrap();
    // The app hears of the end, and still has something to say.
    assert_eq!(client.exactly(3).await, b"bye");
    assert!(client.is_closed().await);
    let idle = async {
        while world.routes.activity(shop.deployment).unwrap().open_upgrades > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(idle).await;
    assert!(world.routes.activity(shop.deployment).unwrap().last.is_some());
}

#[tokio::test]
async fn bytes_before_the_101_never_become_a_tunnel() {
    let world = World::new().await;
    // The app agrees to change: what was sent too early is not passed, the connection is closed.
    let (ends, mut ended) = mpsc::unbounded_channel();
    let address = listen(move |stream| {
        let ends = ends.clone();
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                .await;
            while raw.more().await {}
            ends.send(raw.buffer).unwrap();
        }
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send(format!("{UPGRADE}too early")).await;
    while client.more().await {}
    assert_eq!(within(ended.recv()).await.unwrap(), b"");
    // The app does not change: what follows is the next request, read as one.
    let plain = Origin::saying(HELLO).await;
    world.deploy("plain", plain.address);
    let mut client = world.connect().await;
    let upgrade = UPGRADE.replace("shop", "plain");
    client
        .send(format!(
            "{upgrade}GET /next HTTP/1.1\r\nHost: plain.localhost\r\nX-Forwarded-For: evil\r\n\r\n"
        ))
        .await;
    assert_eq!(client.reply().await.text(), "hello");
    assert_eq!(client.reply().await.text(), "hello");
    assert_eq!(plain.last().line(), "GET /next HTTP/1.1");
    assert_eq!(plain.last().all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn h2c_and_what_is_no_proper_upgrade_become_plain_requests() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    for fields in [
        "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c",
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: echo",
        "GET / HTTP/1.1\r\nUpgrade: websocket",
        "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket",
        "POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0",
    ] {
        let reply = world.ask(&format!("{fields}\r\nHost: shop.localhost\r\n\r\n")).await;
        assert_eq!(reply.text(), "hello", "{fields}");
        let seen = origin.last();
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(seen.all(gone).is_empty(), "{fields}: {}", seen.head);
        }
    }
    // With a body it is no upgrade either.
    world.ask("POST / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 2\r\n\r\nhi").await;
    assert!(origin.last().all("upgrade").is_empty());
    assert_eq!(origin.last().body, b"hi");
    // A change to another protocol than the one asked for.
    let other =
        Origin::saying("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
            .await;
    world.deploy("other", other.address);
    assert_eq!(world.ask(&UPGRADE.replace("shop", "other")).await.code(), "upstream_failed");
}

#[tokio::test]
async fn a_silent_tunnel_ends_after_its_time_and_a_drain_waits_for_a_live_one() {
    let world = World::with(|config| config.upgrade_timeout = Duration::from_millis(300)).await;
    world.deploy("shop", echo().await);
    let mut client = world.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.status, 101);
    client.exactly(2).await;
    assert!(client.is_closed().await);

    let world = World::new().await;
    world.deploy("shop", echo().await);
    let mut client = world.connect().await;
    client.send(UPGRADE).await;
    client.head().await;
    client.exactly(2).await;
    let address = world.address;
    let draining = tokio::spawn(world.ingress.drain(Duration::from_secs(20)));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.exactly(3).await, b"bye");
    assert!(within(draining).await.unwrap(), "the drain was complete");
}

#[tokio::test]
async fn a_unix_socket_carries_a_tunnel_too() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .await
            .unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&said).await.unwrap();
    });
    let shop = crate::world::route("shop");
    world.lease(&shop, "web", Endpoint::Unix(path));
    world.routes.upsert(shop);
    let mut client = world.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.status, 101);
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    assert!(client.is_closed().await);
}
