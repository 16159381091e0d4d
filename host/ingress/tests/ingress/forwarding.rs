//! What an app sees of a request, and a client of an answer.

use ingress::{Endpoint, Lease, TrustedProxies};

use crate::origin::{HELLO, Origin};
use crate::world::World;

#[tokio::test]
async fn the_app_sees_the_request_and_what_ingress_knows_of_the_client() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let reply = world
        .ask(
            "GET /a%2Fb/../c?q=1&q=%20 HTTP/1.1\r\nHost: Shop.localhost:8080\r\nCookie: a=b\r\nAuthorization: Bearer x\r\n\
             User-Agent: test\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Forwarded-For: 10.0.0.1\r\n\
             X-Forwarded-Host: evil\r\nX_Forwarded_Proto: https\r\nForwarded: for=evil\r\nX-Request-Id: mine\r\nProxy: x\r\n\r\n",
        )
        .await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let seen = origin.last();
    assert_eq!(seen.line(), "GET /a%2Fb/../c?q=1&q=%20 HTTP/1.1");
    let expect = |name: &str, values: &[&str]| assert_eq!(seen.all(name), values, "{name} in {}", seen.head);
    expect("host", &["shop.localhost:8080"]);
    expect("cookie", &["a=b"]);
    expect("authorization", &["Bearer x"]);
    expect("user-agent", &["test"]);
    expect("x-forwarded-for", &["127.0.0.1"]);
    expect("x-forwarded-proto", &["http"]);
    expect("x-forwarded-host", &["shop.localhost:8080"]);
    expect("forwarded", &["for=127.0.0.1;host=\"shop.localhost:8080\";proto=http"]);
    for gone in ["connection", "x-hop", "keep-alive", "x_forwarded_proto", "proxy"] {
        expect(gone, &[]);
    }
    let id = seen.all("x-request-id")[0];
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(seen.all("traceparent")[0].split('-').nth(1), Some(id));
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_a_traceparent_goes_on() {
    let world = World::with(|config| {
        config.trusted_proxies = TrustedProxies::parse(["127.0.0.0/8"]).unwrap();
        config.public_scheme = model::Scheme::Https;
    })
    .await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    world
        .ask(&format!(
            "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Forwarded-For: 203.0.113.7\r\nX-Request-Id: req-1\r\ntraceparent: {trace}\r\n\r\n"
        ))
        .await;
    let seen = origin.last();
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.7, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-request-id"), ["req-1"]);
    assert_eq!(seen.all("traceparent"), [trace]);
}

#[tokio::test]
async fn a_lease_may_set_the_host_and_other_fields() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    let mut lease = Lease::new(Endpoint::Tcp(origin.address), 1);
    lease.host_header = Some("inner.example".parse().unwrap());
    lease.set_headers = vec![("x-token".parse().unwrap(), "ours".parse().unwrap())];
    world.set_lease(&shop, "web", Ok(lease));
    let mut client = world.connect().await;
    // The second one goes the short way.
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\nX-Token: mine\r\nX_Token: mine\r\n\r\n").await;
        client.reply().await;
        let seen = origin.last();
        assert_eq!(seen.all("host"), ["inner.example"]);
        assert_eq!(seen.all("x-token"), ["ours"]);
        assert_eq!(seen.all("x_token"), [""; 0]);
        assert_eq!(seen.all("x-forwarded-host"), ["shop.localhost"]);
    }
}

#[tokio::test]
async fn the_client_sees_the_answer_without_its_hop_and_with_cookies_of_its_own() {
    let world = World::new().await;
    let origin = Origin::saying(
        "HTTP/1.1 201 Made Up\r\nContent-Length: 2\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nSet-Cookie: a=1; Domain=localhost; Path=/\r\nSet-Cookie: b=2; Domain=.LOCALHOST\r\n\
         Set-Cookie: c=3; Domain=shop.localhost\r\nContent-Encoding: gzip\r\nServer: app\r\n\r\nok",
    )
    .await;
    world.deploy("shop", origin.address);
    let reply = world.get("shop.localhost").await;
    assert!(reply.head.starts_with("HTTP/1.1 201 Made Up\r\n"), "{}", reply.head);
    assert_eq!(reply.all("set-cookie"), ["a=1; Path=/", "b=2", "c=3; Domain=shop.localhost"]);
    assert_eq!(reply.all("content-encoding"), ["gzip"]);
    assert_eq!(reply.all("server"), ["app"]);
    assert_eq!(reply.all("date").len(), 1);
    for gone in ["connection", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(reply.all(gone).is_empty(), "{gone}: {}", reply.head);
    }
}
