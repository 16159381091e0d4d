//! Answers before the answer, whatever they come over.

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::origin::{Origin, listen};
use crate::world::{World, within};

const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn early_hints_come_early_over_both_versions() {
    let world = World::new().await;
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let origin = listen(move |mut stream: TcpStream| {
        let mut gate = gate.clone();
        async move {
            let mut head = [0; 4096];
            while let Ok(read) = stream.read(&mut head).await
                && read > 0
            {
                stream.write_all(EARLY.as_bytes()).await.unwrap();
                gate.wait_for(|open| *open).await.unwrap();
                let last = b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(last).await.unwrap();
            }
        }
    })
    .await;
    world.deploy("shop", origin);
    // HTTP/1.1.
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let early = client.head().await;
    assert_eq!((early.status, early.all("link")), (103, vec!["</a.css>"]));
    assert!(early.all("connection").is_empty());
    go_on.send(true).unwrap();
    let late = client.head().await;
    assert_eq!((late.status, late.all("link")), (103, vec!["</b.css>"]));
    assert_eq!(client.reply().await.text(), "ok");
    // HTTP/1.0 knows none.
    let reply = world.ask("GET / HTTP/1.0\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    // HTTP/2.
    let stream = within(TcpStream::connect(world.address)).await.unwrap();
    let (mut send, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://shop.localhost/").body(()).unwrap();
    let (mut answer, _): (_, h2::SendStream<Bytes>) = send.send_request(request, true).unwrap();
    for link in ["</a.css>", "</b.css>"] {
        let early = within(std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
        assert_eq!(
            (early.status(), early.headers()["link"].to_str().unwrap()),
            (StatusCode::EARLY_HINTS, link)
        );
    }
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_waits_until_the_app_asks_for_it() {
    let world = World::new().await;
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let origin = listen(move |mut stream: TcpStream| {
        let mut gate = gate.clone();
        async move {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            assert!(head.contains("expect: 100-continue\r\n") && head.ends_with("\r\n\r\n"), "{head}");
            gate.wait_for(|open| *open).await.unwrap();
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    })
    .await;
    world.deploy("shop", origin);
    let mut client = world.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    go_on.send(true).unwrap();
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.reply().await.text(), "body");
}

#[tokio::test]
async fn an_app_that_refuses_a_body_never_gets_it() {
    let world = World::new().await;
    let origin = listen(async |mut stream: TcpStream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        assert_eq!(stream.read(&mut head).await.unwrap_or(0), 0, "a body came");
    })
    .await;
    world.deploy("shop", origin);
    let mut client = world.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (413, "no"));
}

#[tokio::test]
async fn over_http_2_the_client_is_asked_too() {
    let world = World::new().await;
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    world.deploy("shop", origin.address);
    let stream = within(TcpStream::connect(world.address)).await.unwrap();
    let (mut send, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://shop.localhost/").header("expect", "100-continue").body(()).unwrap();
    let (mut answer, mut out) = send.send_request(request, false).unwrap();
    let early = within(std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!(early.status(), StatusCode::CONTINUE);
    out.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(within(answer).await.unwrap().status(), StatusCode::OK);
    assert_eq!(origin.last().body, b"body");
}
