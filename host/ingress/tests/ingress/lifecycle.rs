//! Starting, time-outs, figures, ending.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ingress::{FetcherSource, Ingress, IngressConfig, IngressError, Routes, Waker};
use tokio::sync::mpsc;

use crate::origin::{HELLO, Origin, listen};
use crate::world::{Raw, World, within};

async fn refused(world: &World, set: impl FnOnce(&mut IngressConfig)) -> String {
    let mut config = IngressConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        ..IngressConfig::default()
    };
    set(&mut config);
    let metrics = telemetry::Metrics::new();
    let bound = Ingress::bind(
        config,
        Arc::new(Routes::new("localhost")),
        Arc::clone(&world.source) as Arc<dyn FetcherSource>,
        Arc::clone(&world.waker) as Arc<dyn Waker>,
        None,
        &metrics,
    );
    let error: IngressError = bound.await.err().expect("this should be refused");
    error.to_string()
}

#[tokio::test]
async fn what_can_not_be_is_refused_with_what_to_do() {
    let world = World::with(|config| config.workers = 2).await;
    let taken = refused(&world, |config| config.listen = vec![world.address.into()]).await;
    assert!(taken.starts_with(&format!("{} is taken by another program: stop it", world.address)), "{taken}");
    let check = |set: fn(&mut IngressConfig), part: &'static str| {
        let message = refused(&world, set);
        async move {
            let message = message.await;
            assert!(message.contains(part), "{message}");
        }
    };
    check(|config| config.listen.clear(), "at least one").await;
    check(|config| config.workers = 0, "workers of ingress is 0, but must be at least 1").await;
    check(|config| config.max_header_bytes = 100, "at least 8192").await;
    check(|config| config.base_domain = "Not A Domain".to_owned(), "\"Not A Domain\" is not a host name")
        .await;
    assert!(ingress::TrustedProxies::parse(["10.0.0.0/33"]).unwrap_err().to_string().contains("10.0.0.0/33"));
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let short = Duration::from_millis(200);
    let world = World::with(|config| {
        config.header_timeout = short;
        config.keep_alive_timeout = short;
        config.body_timeout = short;
    })
    .await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    // Says nothing; says half a head; says nothing more after an answer.
    assert!(world.connect().await.is_closed().await);
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: sh").await;
    assert!(client.is_closed().await);
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    client.reply().await;
    assert!(client.is_closed().await);
    // Half a body.
    let mut client = world.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 8\r\n\r\nhalf").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_slow_reader_is_let_go_and_the_app_with_it() {
    let world = World::with(|config| config.write_timeout = Duration::from_millis(300)).await;
    let (ends, mut ended) = mpsc::unbounded_channel();
    let address = listen(move |stream| {
        let ends = ends.clone();
        async move {
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.until(b"\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, chunk.as_bytes()).await.is_ok() {}
            ends.send(()).unwrap();
        }
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    // Reads no more.
    within(ended.recv()).await.unwrap();
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_504() {
    let world = World::with(|config| config.response_timeout = Duration::from_millis(200)).await;
    let address = listen(|stream| async move {
        let mut raw = Raw { stream, buffer: Vec::new() };
        while raw.more().await {}
    })
    .await;
    world.deploy("shop", address);
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "upstream_timeout"));
    // The client's connection is fine.
    client.send("GET / HTTP/1.1\r\nHost: no.localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 404);
}

#[tokio::test]
async fn figures_are_kept_by_deployment_up_to_a_bound() {
    let world = World::with(|config| config.metrics_deployments = 1).await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    world.deploy("other", origin.address);
    world.deploy("third", origin.address);
    for host in ["shop.localhost", "shop.localhost", "other.localhost", "third.localhost", "no.localhost"] {
        world.get(host).await;
    }
    let counted = async {
        loop {
            let text = world.metrics.encode();
            if text.contains("deployment=\"other\",class=\"2xx\"} 2") {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = within(counted).await;
    let id = shop.deployment;
    for line in [
        &format!("hythe_ingress_requests_total{{deployment=\"{id}\",class=\"2xx\"}} 2"),
        &format!("hythe_ingress_open_requests{{deployment=\"{id}\"}} 0"),
        &format!("hythe_ingress_request_duration_seconds_count{{deployment=\"{id}\"}} 2"),
        "hythe_ingress_own_answers_total{code=\"project_not_found\"} 1",
        "hythe_ingress_connections_accepted_total 5",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(world.routes.active().len(), 3);
}

#[tokio::test]
async fn two_workers_share_a_port_and_dropping_ingress_ends_it() {
    let world = World::with(|config| config.workers = 2).await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = world.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hello");
        clients.push(client);
    }
    drop(world.ingress);
    for client in &mut clients {
        assert!(client.is_closed().await);
    }
}
