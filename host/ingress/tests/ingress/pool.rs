//! Connections to apps: whose they are, and what happens when they are not what they seemed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ingress::{Dial, Endpoint, FetchError, Lease, Stream};
use model::Scheme;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::origin::{HELLO, Origin, listen};
use crate::world::{Raw, World, route, within};

const ASK: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

#[tokio::test]
async fn another_incarnation_never_gets_a_connection_of_an_earlier_one_even_at_the_same_address() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = world.deploy("shop", origin.address);
    let mut client = world.connect().await;
    for _ in 0..2 {
        client.send(ASK).await;
        client.reply().await;
    }
    shop.incarnation = 2;
    world.lease(&shop, "web", Endpoint::Tcp(origin.address));
    world.routes.upsert(shop.clone());
    client.send(ASK).await;
    client.reply().await;
    // Another deployment at that address has connections of its own, too.
    world.deploy("other", origin.address);
    client.send(ASK.replace("shop", "other")).await;
    client.reply().await;
    let connections: Vec<_> = origin.recorded.lock().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1, 2]);
    // Back to the first incarnation: what was idle for it is not found again either.
    shop.incarnation = 1;
    world.routes.upsert(shop);
    client.send(ASK).await;
    client.reply().await;
    assert_eq!(origin.last().connection, 3);
}

#[tokio::test]
async fn a_request_on_a_connection_that_was_closing_is_sent_again() {
    let world = World::new().await;
    // Each connection takes two requests, then closes on the third without a word of warning.
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let address = listen(move |stream| {
        let count = Arc::clone(&counter);
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            for _ in 0..2 {
                raw.until(b"\r\n\r\n").await;
                count.fetch_add(1, Ordering::SeqCst);
                raw.send(HELLO).await;
            }
            raw.until(b"\r\n\r\n").await;
        }
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    for _ in 0..7 {
        client.send(ASK).await;
        assert_eq!(client.reply().await.text(), "hello");
    }
    assert_eq!(count.load(Ordering::SeqCst), 7);
    // What may not be sent twice is not: the app has it, perhaps.
    let post = "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 2\r\n\r\nhi";
    client.send(post).await;
    let reply = client.reply().await;
    assert!(reply.status == 200 || reply.code() == "upstream_failed", "{}", reply.head);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_used() {
    let world = World::new().await;
    let (done, mut dones) = mpsc::unbounded_channel();
    let address = listen(move |stream| {
        let done = done.clone();
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            raw.until(b"hi").await;
            raw.send(HELLO).await;
            drop(raw);
            done.send(()).unwrap();
        }
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    // A POST can't be sent twice, so each of these needs a live connection.
    for _ in 0..20 {
        client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.reply().await.status, 200);
        within(dones.recv()).await;
        // A request of another kind in between lets the worker hear of the end.
        assert_eq!(world.get("no.localhost").await.status, 404);
    }
}

#[tokio::test]
async fn an_app_that_does_not_listen_yet_is_tried_again_and_one_that_never_does_is_502() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    world.deploy("shop", address);
    let reply = world.ask(ASK).await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_unreachable"));
    // Asked for again, since connecting failed again and again.
    assert!(world.source.asked.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn when_connecting_fails_the_lease_is_asked_for_again() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", dead);
    let mut client = world.connect().await;
    client.send(ASK).await;
    let asked = async {
        while world.source.asked.load(Ordering::SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
    };
    within(asked).await;
    world.lease(&shop, "web", Endpoint::Tcp(origin.address));
    assert_eq!(client.reply().await.text(), "hello");
}

#[tokio::test]
async fn a_lease_that_ended_serves_on_while_the_source_is_away() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    let mut lease = Lease::new(Endpoint::Tcp(origin.address), 1);
    lease.expires_at = Some(Instant::now());
    world.set_lease(&shop, "web", Ok(lease));
    assert_eq!(world.ask(ASK).await.text(), "hello");
    world.set_lease(&shop, "web", Err(FetchError::Unavailable("the database is away".to_owned())));
    for _ in 0..3 {
        assert_eq!(world.ask(ASK).await.text(), "hello");
    }
    // One that never had a lease can't be served, and says no more than it must.
    let other = route("other");
    world.set_lease(&other, "web", Err(FetchError::Unavailable("the database is away".to_owned())));
    world.routes.upsert(other);
    let reply = world.get("other.localhost").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_unreachable"));
    assert!(!reply.text().contains("database"));
}

#[tokio::test]
async fn a_scheme_that_is_not_spoken_is_said() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    let mut lease = Lease::new(Endpoint::Tcp(origin.address), 1);
    lease.scheme = Scheme::Https;
    world.set_lease(&shop, "web", Ok(lease));
    let reply = world.ask(ASK).await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_unreachable"));
    assert!(reply.text().contains("https"), "{}", reply.text());
}

/// A dialer of its own, as a tunnel through a daemon is.
struct Detour {
    address: SocketAddr,
    dialed: AtomicUsize,
}

#[async_trait]
impl Dial for Detour {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        // The first time it fails: nothing has been sent, so it may be tried again.
        if self.dialed.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(io::Error::other("not yet"));
        }
        Ok(Box::new(TcpStream::connect(self.address).await?))
    }

    fn key(&self) -> &str {
        "detour"
    }
}

#[tokio::test]
async fn streams_may_come_from_a_dialer_and_from_a_unix_socket() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let detour = Arc::new(Detour { address: origin.address, dialed: AtomicUsize::new(0) });
    let shop = route("shop");
    world.lease(&shop, "web", Endpoint::Dial(Arc::clone(&detour) as Arc<dyn Dial>));
    world.routes.upsert(shop);
    let mut client = world.connect().await;
    for _ in 0..3 {
        client.send(ASK).await;
        assert_eq!(client.reply().await.text(), "hello");
    }
    assert_eq!(detour.dialed.load(Ordering::SeqCst), 2, "one failed, one is kept");
}

#[tokio::test]
async fn idle_connections_to_an_app_are_closed_after_their_time() {
    let world = World::with(|config| config.pool_idle_timeout = Duration::from_millis(200)).await;
    let (ends, mut ended) = mpsc::unbounded_channel();
    let address = listen(move |stream| {
        let ends = ends.clone();
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            raw.send(HELLO).await;
            while raw.more().await {}
            ends.send(()).unwrap();
        }
    })
    .await;
    world.deploy("shop", address);
    assert_eq!(world.ask(ASK).await.text(), "hello");
    within(ended.recv()).await.unwrap();
}
