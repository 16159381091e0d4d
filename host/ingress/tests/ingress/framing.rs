//! Messages: one meaning each, framed right on both sides, and connections that go on or end as they must.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::origin::{HELLO, Origin, listen};
use crate::world::{Raw, World};

#[tokio::test]
async fn connections_are_reused_on_both_sides_and_pipelined_requests_answered_in_order() {
    let world = World::new().await;
    let origin = Origin::new(|request| {
        let path = request.line().split(' ').nth(1).unwrap().to_owned();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).into_bytes()
    })
    .await;
    world.deploy("shop", origin.address);
    let mut client = world.connect().await;
    for number in 0..10 {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        assert_eq!(client.reply().await.text(), format!("/{number}"));
    }
    let three: String =
        (0..3).map(|n| format!("GET /p{n} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).collect();
    client.send(three).await;
    for number in 0..3 {
        assert_eq!(client.reply().await.text(), format!("/p{number}"));
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
    client.send("GET /last HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n").await;
    let last = client.reply().await;
    assert_eq!((last.text().as_str(), last.all("connection")), ("/last", vec!["close"]));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn http_1_0_gets_what_it_understands() {
    let world = World::new().await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let origin = Origin::saying(chunked).await;
    world.deploy("shop", origin.address);
    let reply = world.ask("GET / HTTP/1.0\r\nHost: shop.localhost\r\n\r\n").await;
    assert!(reply.head.starts_with("HTTP/1.0 200"), "{}", reply.head);
    assert_eq!((reply.text().as_str(), reply.all("transfer-encoding").len()), ("abcde", 0));
    assert!(origin.last().line().ends_with("HTTP/1.1"));
    let hello = Origin::saying(HELLO).await;
    world.deploy("hello", hello.address);
    let mut client = world.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: hello.localhost\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hello");
    }
    // An app that speaks 1.0 ends its answer by closing.
    let old = Origin::saying("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nto the end").await;
    world.deploy("old", old.address);
    let reply = world.get("old.localhost").await;
    assert_eq!((reply.text().as_str(), reply.all("transfer-encoding")), ("to the end", vec!["chunked"]));
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_the_connection_goes_on() {
    let world = World::new().await;
    let origin = Origin::new(|request| match request.line().split(' ').nth(1).unwrap() {
        "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec(),
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: x\r\n\r\n".to_vec(),
        "/empty" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        // A 100 that nobody asked for is not passed on.
        "/early" => b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        _ => HELLO.as_bytes().to_vec(),
    })
    .await;
    world.deploy("shop", origin.address);
    let mut client = world.connect().await;
    client.send("HEAD /head HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.all("content-length")), (200, vec!["1234"]));
    for (path, status, body) in
        [("/204", 204, ""), ("/304", 304, ""), ("/empty", 200, ""), ("/early", 103, ""), ("/", 200, "hello")]
    {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{path}");
        if status == 103 {
            assert_eq!(reply.all("link"), ["x"]);
            assert_eq!(client.reply().await.text(), "ok");
        }
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bodies_reach_the_app_in_either_framing_and_with_any_method() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "PROPFIND"] {
        world
            .ask(&format!("{method} / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 4\r\n\r\nbody"))
            .await;
        let seen = origin.last();
        assert_eq!((seen.body.as_slice(), seen.all("content-length")), (&b"body"[..], vec!["4"]), "{method}");
        let chunked = "Transfer-Encoding: Chunked\r\n\r\n2;ext=1\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n";
        world.ask(&format!("{method} / HTTP/1.1\r\nHost: shop.localhost\r\n{chunked}")).await;
        let seen = origin.last();
        assert_eq!((seen.body.as_slice(), seen.all("content-length").len()), (&b"body"[..], 0), "{method}");
    }
    world.ask("OPTIONS * HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(origin.last().line(), "OPTIONS * HTTP/1.1");
    world.ask("GET http://SHOP.localhost/a?b HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(origin.last().line(), "GET /a?b HTTP/1.1");
}

#[tokio::test]
async fn trailers_pass_where_they_are_sane() {
    let world = World::new().await;
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status, set-cookie\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\nset-cookie: a=b\r\n\r\n",
    )
    .await;
    world.deploy("shop", origin.address);
    let reply = world
        .ask(
            "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-checksum, x-forwarded-for, host\r\n\r\n2\r\nhi\r\n0\r\nX-Checksum: 1\r\nX-Forwarded-For: evil\r\nHost: evil\r\n\r\n",
        )
        .await;
    assert_eq!((reply.text().as_str(), reply.trailers.as_str()), ("ok", "grpc-status: 0\r\n"));
    let seen = origin.last();
    assert_eq!((seen.trailers.as_str(), seen.all("te")), ("x-checksum: 1\r\n", vec!["trailers"]));
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_the_app_asks() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let mut client = world.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.reply().await.text(), "hello");
    assert_eq!((origin.last().body.as_slice(), origin.last().all("expect").len()), (&b"body"[..], 1));
    // A refusal comes at once, and the body that was never sent is not waited for.
    let mut client = world.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: no.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.code(), "project_not_found");
    assert!(client.is_closed().await);
}

/// What each of these is told, and that the connection is closed after it, so that nothing behind it is
/// taken for a request.
#[tokio::test]
async fn requests_with_two_meanings_are_refused_and_the_connection_closed() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let host = "Host: shop.localhost\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    for (name, request, status) in [
        ("two hosts", format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("no host in 1.0", "GET / HTTP/1.0\r\n\r\n".to_owned(), 400),
        ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), 400),
        ("invalid host", "GET / HTTP/1.1\r\nHost: shop.localhost/x\r\n\r\n".to_owned(), 400),
        ("host with user", "GET / HTTP/1.1\r\nHost: a@shop.localhost\r\n\r\n".to_owned(), 400),
        ("host list", "GET / HTTP/1.1\r\nHost: shop.localhost, evil\r\n\r\n".to_owned(), 400),
        ("target against host", format!("GET http://evil.localhost/ HTTP/1.1\r\n{host}\r\n"), 400),
        ("target with user", format!("GET http://a@shop.localhost/ HTTP/1.1\r\n{host}\r\n"), 400),
        ("foreign scheme", format!("GET ftp://shop.localhost/ HTTP/1.1\r\n{host}\r\n"), 400),
        ("no path", format!("GET shop.localhost HTTP/1.1\r\n{host}\r\n"), 400),
        ("star for GET", format!("GET * HTTP/1.1\r\n{host}\r\n"), 400),
        (
            "identity, chunked",
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
            400,
        ),
        (
            "chunked twice",
            format!(
                "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            "gzip, chunked",
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            400,
        ),
        (
            "connection names length",
            format!("POST / HTTP/1.1\r\n{host}Connection: content-length\r\nContent-Length: 0\r\n\r\n"),
            400,
        ),
        ("connection names host", format!("GET / HTTP/1.1\r\n{host}Connection: host\r\n\r\n"), 400),
        ("strange expectation", format!("GET / HTTP/1.1\r\n{host}Expect: magic\r\n\r\n"), 417),
        ("CONNECT", "CONNECT shop.localhost:80 HTTP/1.1\r\nHost: shop.localhost:80\r\n\r\n".to_owned(), 405),
        ("TRACE", format!("TRACE / HTTP/1.1\r\n{host}\r\n"), 405),
    ] {
        let mut client = world.connect().await;
        client.send(format!("{request}{smuggled}")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{name}: {}", reply.head);
        reply.code();
        assert!(client.is_closed().await, "{name}: goes on");
    }
    assert_eq!(origin.count(), 0, "{:?}", origin.recorded.lock());
}

/// hyper refuses these itself, without a text of ours.
#[tokio::test]
async fn malformed_heads_are_refused_and_the_connection_closed() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let host = "Host: shop.localhost\r\n";
    let many = "X-A: 1\r\n".repeat(101);
    let long = format!("X-A: {}\r\n", "a".repeat(80 * 1024));
    for (name, request, status) in [
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            400,
        ),
        ("negative length", format!("POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"), 400),
        ("plus length", format!("POST / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\na"), 400),
        ("list of lengths", format!("POST / HTTP/1.1\r\n{host}Content-Length: 1, 2\r\n\r\na"), 400),
        (
            "coding not final",
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, gzip\r\n\r\n"),
            400,
        ),
        (
            "coding in 1.0",
            format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400,
        ),
        ("space before colon", format!("GET / HTTP/1.1\r\n{host}X-A : 1\r\n\r\n"), 400),
        ("folded line", format!("GET / HTTP/1.1\r\n{host}X-A: 1\r\n 2\r\n\r\n"), 400),
        ("nul in value", format!("GET / HTTP/1.1\r\n{host}X-A: \0\r\n\r\n"), 400),
        ("bare CR in value", format!("GET / HTTP/1.1\r\n{host}X-A: 1\rX-B: 2\r\n\r\n"), 400),
        ("no version", format!("GET /\r\n{host}\r\n"), 400),
        ("version 2.0", format!("GET / HTTP/2.0\r\n{host}\r\n"), 400),
        ("space in target", format!("GET /a b HTTP/1.1\r\n{host}\r\n"), 400),
        ("control in target", format!("GET /\u{1} HTTP/1.1\r\n{host}\r\n"), 400),
        ("too many fields", format!("GET / HTTP/1.1\r\n{host}{many}\r\n"), 431),
        ("too long a head", format!("GET / HTTP/1.1\r\n{host}{long}\r\n"), 431),
    ] {
        let mut client = world.connect().await;
        client.send(&request).await;
        assert_eq!(client.head().await.status, status, "{name}");
        assert!(client.is_closed().await, "{name}: goes on");
    }
    assert_eq!(origin.count(), 0, "{:?}", origin.recorded.lock());
}

#[tokio::test]
async fn a_length_beside_a_coding_has_one_meaning_and_ends_the_connection() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    for fields in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 6"]
    {
        let mut client = world.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\n{fields}\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        assert_eq!(client.reply().await.text(), "hello");
        assert!(client.is_closed().await);
        let seen = origin.last();
        assert_eq!((seen.body.as_slice(), seen.all("content-length").len()), (&b"hi"[..], 0));
    }
    assert_eq!(origin.count(), 2);
    // A bare LF ends a line for hyper; what the app gets has none.
    world.ask("GET / HTTP/1.1\nHost: shop.localhost\nX-A: 1\n\n").await;
    assert!(!origin.last().head.replace("\r\n", "").contains('\n'));
    assert_eq!(origin.last().all("x-a"), ["1"]);
}

#[tokio::test]
async fn an_early_answer_reaches_the_client_and_the_unread_body_is_no_request() {
    let world = World::new().await;
    let address = listen(|stream| async move {
        let mut raw = Raw { stream, buffer: Vec::new() };
        raw.until(b"\r\n\r\n").await;
        raw.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10000000\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (413, "big"));
    // The rest of the body looks like a request, and is none: it leads nowhere.
    let _ = client.stream.write_all(b"GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn answers_that_are_none_or_have_two_meanings_are_502() {
    let world = World::new().await;
    for (number, answer) in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let origin = Origin::saying(answer).await;
        world.deploy(&format!("app{number}"), origin.address);
        let reply = world.get(&format!("app{number}.localhost")).await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_failed"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let world = World::new().await;
    for (slug, answer) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nX: Connection: close\r\n\r\npart"),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: Connection: close\r\n\r\n4\r\npart\r\n",
        ),
    ] {
        let origin = Origin::saying(answer).await;
        world.deploy(slug, origin.address);
        let mut client = world.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {slug}.localhost\r\n\r\n")).await;
        assert_eq!(client.head().await.status, 200);
        let mut rest = std::mem::take(&mut client.buffer);
        let _ = client.stream.read_to_end(&mut rest).await;
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.contains("part") && !rest.ends_with("0\r\n\r\n"), "{rest:?}");
    }
}
