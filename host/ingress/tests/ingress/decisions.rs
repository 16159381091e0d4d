//! Requests about which somebody else decides: where they go, what may be changed, and what the client is
//! told when there is no decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use ingress::{
    Decision, Endpoint, Forward, Lease, RequestHead, RequestRouter, RouteFailure, Routed, RouterFactory,
};
use model::{DeploymentId, ProjectId, Scheme, ServiceSelector};
use parking_lot::Mutex;

use crate::origin::{HELLO, Origin};
use crate::world::{World, route, service};

type Decided = Result<Decision, RouteFailure>;

/// Decides as it is told, and notes what it was asked.
#[derive(Clone)]
struct Fake {
    decide: Arc<dyn Fn(&RequestHead<'_>) -> Decided + Send + Sync>,
    seen: Arc<Mutex<Vec<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    fn new(decide: impl Fn(&RequestHead<'_>) -> Decided + Send + Sync + 'static) -> Self {
        Self { decide: Arc::new(decide), seen: Arc::default(), asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl RouterFactory for Fake {
    fn worker(&self) -> Box<dyn RequestRouter> {
        Box::new(self.clone())
    }
}

impl RequestRouter for Fake {
    fn route(&mut self, routed: &Routed, head: &RequestHead<'_>) -> Decided {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let Routed { adapter, deployment, service, config } = routed;
        let RequestHead { incarnation, method, scheme, authority, path_with_query, client_address, .. } =
            head;
        self.seen.lock().push(format!(
            "{adapter} {deployment} {service} {config} {incarnation} {method} {scheme} {authority} {path_with_query} {client_address}"
        ));
        (self.decide)(head)
    }
}

fn forward(forward: Forward) -> Decided {
    Ok(Decision::Forward(Box::new(forward)))
}

fn to(service: &str) -> Forward {
    Forward { service: Some(ServiceSelector::Name(service.parse().unwrap())), ..Forward::default() }
}

fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

fn routed_lease(origin: &Origin) -> Lease {
    let mut lease = Lease::new(Endpoint::Tcp(origin.address), 1);
    lease.routed = Some(Routed {
        adapter: "canary".into(),
        deployment: "dep_x".into(),
        service: "web".into(),
        config: "{}".into(),
    });
    lease
}

/// A deployment `shop` with the services `web`, whose requests are asked about, and `next`; and their origins.
struct Shop {
    world: World,
    fake: Fake,
    web: Origin,
    next: Origin,
    project: ProjectId,
}

impl Shop {
    async fn new(decide: impl Fn(&RequestHead<'_>) -> Decided + Send + Sync + 'static) -> Self {
        let fake = Fake::new(decide);
        let world = World::routed(Arc::new(fake.clone())).await;
        let (web, next) = (Origin::saying(HELLO).await, Origin::saying(HELLO).await);
        let mut shop = route("shop");
        shop.services.push(service("next", 4000));
        world.set_lease(&shop, "web", Ok(routed_lease(&web)));
        world.lease(&shop, "next", Endpoint::Tcp(next.address));
        let project = shop.project;
        world.routes.upsert(shop);
        Self { world, fake, web, next, project }
    }
}

#[tokio::test]
async fn a_request_goes_where_it_was_going_or_to_another_service() {
    let shop = Shop::new(|head| match head.headers.contains_key("x-canary") {
        true => forward(to("next")),
        false => forward(Forward::default()),
    })
    .await;
    let mut client = shop.world.connect().await;
    // Each twice: without a connection at hand, and with one.
    for _ in 0..2 {
        client.send("GET /a?b=c HTTP/1.1\r\nHost: SHOP.localhost\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hello");
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Canary: 1\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hello");
    }
    assert_eq!((shop.web.count(), shop.next.count(), shop.fake.asked()), (2, 2, 4));
    assert_eq!(shop.fake.seen.lock()[0], "canary dep_x web {} 1 GET http shop.localhost /a?b=c 127.0.0.1");
    // The other service's own host is not asked about: its lease does not say so.
    assert_eq!(shop.world.get("next--shop.localhost").await.status, 200);
    assert_eq!((shop.next.count(), shop.fake.asked()), (3, 4));
    assert!(shop.world.metrics.encode().contains("ingress_routing_calls_total 4"));
}

#[tokio::test]
async fn path_and_headers_are_changed_before_the_lease_sets_its_own() {
    let shop = Shop::new(|_| {
        forward(Forward {
            path: Some("/inner?x=1".parse().unwrap()),
            remove: vec![HeaderName::from_static("cookie"), HeaderName::from_static("x-token")],
            set: vec![field("x-user", "ours"), field("x-version", "decision")],
            ..to("next")
        })
    })
    .await;
    let mut shop_route = route("other");
    shop_route.services.push(service("next", 4000));
    shop.world.set_lease(&shop_route, "web", Ok(routed_lease(&shop.web)));
    let mut lease = Lease::new(Endpoint::Tcp(shop.next.address), 1);
    lease.set_headers = vec![field("x-version", "lease")];
    shop.world.set_lease(&shop_route, "next", Ok(lease));
    shop.world.routes.upsert(shop_route);
    shop.world
        .ask("GET /outer HTTP/1.1\r\nHost: other.localhost\r\nCookie: a=b\r\nX-Token: 1\r\nX_User: theirs\r\nX-User: theirs\r\n\r\n")
        .await;
    let seen = shop.next.last();
    assert_eq!(seen.line(), "GET /inner?x=1 HTTP/1.1");
    assert_eq!(seen.all("x-user"), ["ours"]);
    assert_eq!(seen.all("x-version"), ["lease"]);
    for gone in ["cookie", "x-token", "x_user"] {
        assert!(seen.all(gone).is_empty(), "{gone} in {}", seen.head);
    }
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn an_answer_of_its_own_is_framed_and_its_cookies_are_kept_to_their_host() {
    let shop = Shop::new(|head| {
        let mut reply = Response::new(Bytes::from_static(b"short and stout"));
        *reply.status_mut() = http::StatusCode::IM_A_TEAPOT;
        reply.headers_mut().insert("set-cookie", HeaderValue::from_static("a=b; Domain=localhost; Path=/"));
        if head.path_with_query == "/empty" {
            *reply.status_mut() = http::StatusCode::NO_CONTENT;
        }
        Ok(Decision::Respond(Box::new(reply)))
    })
    .await;
    let mut client = shop.world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (418, "short and stout"));
    assert_eq!(reply.all("content-length"), ["15"]);
    assert!(!reply.all("set-cookie")[0].contains("Domain"), "{}", reply.head);
    client.send("HEAD / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.status, 418);
    client.send("GET /empty HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 204);
    // A body that nobody reads does not become the next request.
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(client.reply().await.status, 418);
    assert_eq!(shop.world.get("shop.localhost").await.status, 418);
    assert_eq!((shop.web.count(), shop.next.count()), (0, 0));
}

#[tokio::test]
async fn without_a_decision_there_is_a_code_and_nothing_reaches_an_app() {
    let shop = Shop::new(|head| match head.path_with_query {
        "/off" => Err(RouteFailure::Off),
        "/failed" => Err(RouteFailure::Failed),
        "/invalid" => Err(RouteFailure::Invalid("a secret".to_owned())),
        "/nowhere" => forward(to("nowhere")),
        "/101" => {
            let mut reply = Response::new(Bytes::new());
            *reply.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            Ok(Decision::Respond(Box::new(reply)))
        }
        "/length" => {
            let mut reply = Response::new(Bytes::from_static(b"12345"));
            reply.headers_mut().insert("content-length", HeaderValue::from_static("3"));
            Ok(Decision::Respond(Box::new(reply)))
        }
        "/path" => forward(Forward { path: Some("/%zz".parse().unwrap()), ..Forward::default() }),
        // The headers that a decision may not touch: `/set/<name>` and `/remove/<name>`.
        path => {
            let mut parts = path.split('/').skip(1);
            let (verb, name) = (parts.next().unwrap(), parts.next().unwrap());
            let name: HeaderName = name.parse().unwrap();
            match verb {
                "set" => forward(Forward {
                    set: vec![(name, HeaderValue::from_static("1"))],
                    ..Forward::default()
                }),
                _ => forward(Forward { remove: vec![name], ..Forward::default() }),
            }
        }
    })
    .await;
    let check = async |path: &str, status: u16, code: &str| {
        let reply = shop.world.ask(&format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
        assert!(!reply.text().contains("secret"), "{}", reply.text());
    };
    check("/off", 503, "adapter_routing_off").await;
    check("/failed", 503, "adapter_routing_failed").await;
    check("/invalid", 502, "adapter_routing_invalid").await;
    check("/nowhere", 404, "service_not_found").await;
    check("/101", 502, "adapter_routing_invalid").await;
    check("/length", 502, "adapter_routing_invalid").await;
    check("/path", 502, "adapter_routing_invalid").await;
    for name in [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "keep-alive",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-anything",
        "x_forwarded-for",
        "x-real-ip",
        "x-request-id",
        "traceparent",
        "proxy-authorization",
        "content_length",
    ] {
        check(&format!("/set/{name}"), 502, "adapter_routing_invalid").await;
        check(&format!("/remove/{name}"), 502, "adapter_routing_invalid").await;
    }
    assert_eq!((shop.web.count(), shop.next.count()), (0, 0));
}

#[tokio::test]
async fn another_deployment_of_the_project_may_take_a_request_and_no_other_one() {
    let target: Arc<Mutex<Option<DeploymentId>>> = Arc::default();
    let aim = Arc::clone(&target);
    let shop = Shop::new(move |_| forward(Forward { deployment: *aim.lock(), ..Forward::default() })).await;
    let world = &shop.world;
    let preview = {
        let mut preview = route("shop");
        preview.project = shop.project;
        preview.is_primary = false;
        // It is asked about itself, but not by a request that was decided about.
        world.set_lease(&preview, "web", Ok(routed_lease(&shop.next)));
        world.routes.upsert(preview.clone());
        preview
    };
    *target.lock() = Some(preview.deployment);
    assert_eq!(world.get("shop.localhost").await.status, 200);
    assert_eq!((shop.web.count(), shop.next.count(), shop.fake.asked()), (0, 1, 1));
    assert!(world.routes.activity(preview.deployment).unwrap().last.is_some());

    let foreign = Origin::saying(HELLO).await;
    let neighbour = world.deploy("neighbour", foreign.address);
    *target.lock() = Some(neighbour.deployment);
    assert_eq!(world.get("shop.localhost").await.code(), "adapter_routing_invalid");
    *target.lock() = Some(DeploymentId::new());
    assert_eq!(world.get("shop.localhost").await.code(), "adapter_routing_invalid");
    assert_eq!(foreign.count(), 0);

    // One that is stopped is started, by its own rules.
    let stopped = model::WakePolicy::None;
    let preview = ingress::DeploymentRoute {
        seen: model::Seen::Stopped,
        wanted: model::Wanted::Stopped,
        wake: stopped,
        ..preview
    };
    *target.lock() = Some(preview.deployment);
    world.routes.upsert(preview);
    assert_eq!(world.get("shop.localhost").await.code(), "deployment_stopped");
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_not_asked_about_again() {
    let shop = Shop::new(|_| forward(to("next"))).await;
    // Closes each connection after its second request, without an answer to that one.
    let origin = Origin::new({
        let served = AtomicUsize::new(0);
        move |_| {
            if served.fetch_add(1, Ordering::SeqCst) == 1 { Vec::new() } else { HELLO.as_bytes().to_vec() }
        }
    })
    .await;
    let mut again = route("again");
    again.services.push(service("next", 4000));
    shop.world.set_lease(&again, "web", Ok(routed_lease(&shop.web)));
    shop.world.lease(&again, "next", Endpoint::Tcp(origin.address));
    shop.world.routes.upsert(again);
    assert_eq!(shop.world.get("again.localhost").await.status, 200);
    assert_eq!(shop.world.get("again.localhost").await.status, 200);
    assert_eq!((origin.count(), shop.fake.asked(), shop.web.count()), (3, 2, 0));
}

#[tokio::test]
async fn a_service_of_h2c_is_asked_about_too() {
    let shop = Shop::new(|_| forward(to("web"))).await;
    let mut mixed = route("mixed");
    mixed.services.push(service("next", 4000));
    let mut lease = routed_lease(&shop.web);
    lease.scheme = Scheme::H2c;
    shop.world.set_lease(&mixed, "next", Ok(lease));
    shop.world.lease(&mixed, "web", Endpoint::Tcp(shop.web.address));
    shop.world.routes.upsert(mixed);
    assert_eq!(shop.world.get("next--mixed.localhost").await.status, 200);
    assert_eq!((shop.web.count(), shop.fake.asked()), (1, 1));
}
