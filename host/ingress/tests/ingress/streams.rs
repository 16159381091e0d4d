//! Bodies that are long, slow, or both ways at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::Seen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, mpsc};

use crate::origin::listen;
use crate::world::{Raw, World, within};

const BYTES: usize = 50 << 20;

/// Byte `at` of every long body here.
fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// The piece of the pattern that begins there.
fn piece(at: usize, length: usize) -> Vec<u8> {
    (at..at + length).map(pattern).collect()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The answer begins before the request has ended; both are 50 MiB long, and neither waits for the other.
#[tokio::test]
async fn fifty_mebibytes_go_both_ways_at_once_in_flat_memory() {
    let world = World::new().await;
    let address = listen(|stream| async move {
        let mut raw = Raw { stream, buffer: Vec::new() };
        raw.until(b"\r\n\r\n").await;
        let early = std::mem::take(&mut raw.buffer);
        let (mut read, mut write) = raw.stream.into_split();
        let upload = async move {
            let mut at = 0;
            let mut check = |bytes: &[u8]| {
                assert!(
                    bytes.iter().enumerate().all(|(index, byte)| *byte == pattern(at + index)),
                    "at {at}"
                );
                at += bytes.len();
                at
            };
            let mut got = check(&early);
            let mut bytes = vec![0; 64 * 1024];
            while got < BYTES {
                let length = read.read(&mut bytes).await.unwrap();
                assert_ne!(length, 0, "the upload broke off");
                got = check(&bytes[..length]);
            }
        };
        let download = async move {
            write
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes())
                .await
                .unwrap();
            for at in (0..BYTES).step_by(64 * 1024) {
                write.write_all(&piece(at, 64 * 1024)).await.unwrap();
            }
            write
        };
        let (_write, ()) = tokio::join!(download, upload);
    })
    .await;
    world.deploy("shop", address);
    let before = resident_kib();
    let mut client = world.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: {BYTES}\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 200);
    let early = std::mem::take(&mut client.buffer);
    let (mut read, mut write) = client.stream.split();
    let upload = async {
        for at in (0..BYTES).step_by(64 * 1024) {
            write.write_all(&piece(at, 64 * 1024)).await.unwrap();
        }
    };
    let download = async {
        let mut at = early.len();
        assert_eq!(early, piece(0, at));
        let mut bytes = vec![0; 64 * 1024];
        while at < BYTES {
            let length = read.read(&mut bytes).await.unwrap();
            assert_ne!(length, 0, "the download broke off");
            assert!(
                bytes[..length].iter().enumerate().all(|(index, byte)| *byte == pattern(at + index)),
                "at {at}"
            );
            at += length;
        }
    };
    within(async { tokio::join!(upload, download) }).await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 40 * 1024, "{grown} KiB more for two bodies of 50 MiB");
}

/// An app that reads slowly slows the client down; nothing piles up in between.
#[tokio::test]
async fn a_slow_app_holds_the_client_back() {
    let world = World::new().await;
    let read = Arc::new(AtomicUsize::new(0));
    let written = Arc::new(AtomicUsize::new(0));
    let steps = Arc::new(Semaphore::new(0));
    let (counter, allowed) = (Arc::clone(&read), Arc::clone(&steps));
    let address = listen(move |stream| {
        let (counter, allowed) = (Arc::clone(&counter), Arc::clone(&allowed));
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            let mut got = raw.buffer.len();
            let mut bytes = vec![0; 1 << 20];
            while got < BYTES {
                allowed.acquire().await.unwrap().forget();
                got += raw.stream.read(&mut bytes).await.unwrap();
                counter.store(got, Ordering::SeqCst);
            }
            raw.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    world.deploy("shop", address);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    let stream = socket.connect(world.address).await.unwrap();
    let mut client = Raw { stream, buffer: Vec::new() };
    client.send(format!("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: {BYTES}\r\n\r\n")).await;
    let upload = async {
        for at in (0..BYTES).step_by(16 * 1024) {
            client.stream.write_all(&piece(at, 16 * 1024)).await.unwrap();
            let ahead = written.fetch_add(16 * 1024, Ordering::SeqCst) - read.load(Ordering::SeqCst).min(at);
            // Socket buffers of the kernel on the way, and little of ours.
            assert!(ahead < 32 << 20, "{ahead} bytes are on the way");
            steps.add_permits(1);
        }
        steps.add_permits(1 << 20);
        client.head().await
    };
    assert_eq!(within(upload).await.status, 204);
}

#[tokio::test]
async fn each_event_of_a_stream_comes_at_once() {
    let world = World::new().await;
    let (events, receiver) = mpsc::unbounded_channel::<&'static str>();
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let address = listen(move |stream| {
        let receiver = Arc::clone(&receiver);
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            raw.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .await;
            let mut receiver = receiver.lock().await;
            while let Some(event) = receiver.recv().await {
                raw.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
            }
            raw.send("0\r\n\r\n").await;
        }
    })
    .await;
    let shop = world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send("GET /events HTTP/1.1\r\nHost: shop.localhost\r\nAccept: text/event-stream\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    for event in ["data: one\n\n", "data: two\n\n"] {
        events.send(event).unwrap();
        // The next event is not sent before this one is here: nothing collects them.
        let got = String::from_utf8(client.until(b"\n\n\r\n").await).unwrap();
        assert!(got.contains(event.trim_end()), "{got:?}");
    }
    assert_eq!(world.routes.activity(shop.deployment).unwrap().open_requests, 1);
    // The deployment is started anew and ingress drains: the stream lives on to its end.
    let mut next = shop.clone();
    (next.incarnation, next.seen) = (2, Seen::Starting);
    world.routes.upsert(next);
    let draining = tokio::spawn(world.ingress.drain(Duration::from_secs(20)));
    events.send("data: three\n\n").unwrap();
    assert!(String::from_utf8(client.until(b"\n\n\r\n").await).unwrap().contains("three"));
    drop(events);
    client.until(b"0\r\n\r\n").await;
    assert!(client.is_closed().await);
    assert!(within(draining).await.unwrap(), "the drain was complete");
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_is_cut() {
    let world = World::new().await;
    let address = listen(|stream| async move {
        let mut raw = Raw { stream, buffer: Vec::new() };
        raw.until(b"\r\n\r\n").await;
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while raw.more().await {}
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    let mut idle = world.connect().await;
    assert!(!within(world.ingress.drain(Duration::from_millis(50))).await);
    assert!(client.is_closed().await);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_from_the_app() {
    let world = World::new().await;
    let (ends, mut ended) = mpsc::unbounded_channel();
    let address = listen(move |stream| {
        let ends = ends.clone();
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            ends.send("began").unwrap();
            while raw.more().await {}
            ends.send("ended").unwrap();
        }
    })
    .await;
    let shop = world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(within(ended.recv()).await, Some("began"));
    drop(client);
    assert_eq!(within(ended.recv()).await, Some("ended"));
    let idle = async {
        while world.routes.activity(shop.deployment).unwrap().open_requests > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(idle).await;
}
