//! Caps and what they protect: whoever is over one is told at once, and nobody else notices.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::origin::{HELLO, Origin, listen};
use crate::world::{World, within};

const ASK: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";

/// An app that takes requests and never answers; tells of each.
async fn silent() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (taken, takes) = mpsc::unbounded_channel();
    let address = listen(move |mut stream: TcpStream| {
        let taken = taken.clone();
        async move {
            let mut head = [0; 4096];
            while let Ok(read) = stream.read(&mut head).await
                && read > 0
            {
                taken.send(()).unwrap();
            }
        }
    })
    .await;
    (address, takes)
}

#[tokio::test]
async fn a_deployment_that_is_full_does_not_fill_the_rest() {
    let world = World::with(|config| config.max_deployment_requests = 3).await;
    let (shop, mut takes) = silent().await;
    world.deploy("shop", shop);
    let other = Origin::saying(HELLO).await;
    world.deploy("other", other.address);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = world.connect().await;
        client.send(ASK).await;
        within(takes.recv()).await.unwrap();
        open.push(client);
    }
    for _ in 0..10 {
        let reply = world.ask(ASK).await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"));
        assert_eq!(reply.all("retry-after"), ["1"]);
        assert_eq!(world.get("other.localhost").await.text(), "hello");
    }
    assert!(takes.try_recv().is_err(), "nothing more reached the app");
    // A client that leaves makes room.
    open.pop();
    loop {
        let mut client = world.connect().await;
        client.send(ASK).await;
        if within(async {
            tokio::select! { _ = takes.recv() => true, reply = client.reply() => reply.status != 503 }
        })
        .await
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_worker_that_is_full_says_so() {
    let world = World::with(|config| config.max_requests = 2).await;
    let (shop, mut takes) = silent().await;
    world.deploy("shop", shop);
    let other = Origin::saying(HELLO).await;
    world.deploy("other", other.address);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = world.connect().await;
        client.send(ASK).await;
        within(takes.recv()).await.unwrap();
        open.push(client);
    }
    let reply = world.get("other.localhost").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"));
}

#[tokio::test]
async fn a_place_that_takes_no_connections_is_left_alone() {
    let world = World::with(|config| config.connect_retries = 1).await;
    // Nobody listens there.
    let gone = listen(async |_: TcpStream| ()).await;
    let vacant = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    assert_ne!(gone, vacant);
    world.deploy("shop", vacant);
    let failures = |world: &World| {
        let text = world.metrics.encode();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let line = lines.find(|line| line.contains("ingress_connect_failures")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let reply = world.ask(ASK).await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_unreachable"));
    let tried = failures(&world);
    assert_eq!(tried, 2);
    for _ in 0..5 {
        let reply = world.ask(ASK).await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream_unreachable"));
    }
    assert_eq!(failures(&world), tried, "nobody knocked meanwhile");
    // It comes up, and is found.
    let listener = tokio::net::TcpListener::bind(vacant).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while let Ok(read) = stream.read(&mut head).await
                    && read > 0
                {
                    tokio::io::AsyncWriteExt::write_all(&mut stream, HELLO.as_bytes()).await.unwrap();
                }
            });
        }
    });
    within(async { while world.ask(ASK).await.status != 200 {} }).await;
}

#[tokio::test]
async fn four_million_fields_and_a_silent_client_harm_nobody() {
    let world = World::with(|config| config.header_timeout = Duration::from_millis(300)).await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let mut silent = world.connect().await;
    let mut endless = world.connect().await;
    endless.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n").await;
    let fields = "x-a: 1\r\n".repeat(10_000);
    let mut refused = false;
    for _ in 0..400 {
        if tokio::io::AsyncWriteExt::write_all(&mut endless.stream, fields.as_bytes()).await.is_err() {
            refused = true;
            break;
        }
    }
    assert!(refused, "it took all of it");
    assert_eq!(world.ask(ASK).await.text(), "hello");
    assert!(silent.is_closed().await);
}
