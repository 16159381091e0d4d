//! Which host leads where, and what is said where none does.

use ingress::{Alias, AliasTarget, Endpoint, FetchError, OldMachine};
use model::{MachineId, Seen, ServiceSelector, WakePolicy, Wanted};

use crate::origin::{HELLO, Origin};
use crate::world::{World, route, service};

#[tokio::test]
async fn every_form_of_host_reaches_its_service() {
    let world = World::new().await;
    let web = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb").await;
    let api = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napi").await;
    let extra = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra").await;
    let mut shop = route("shop");
    shop.services = vec![service("web", 3000), service("api", 4000)];
    world.lease(&shop, "web", Endpoint::Tcp(web.address));
    world.lease(&shop, "api", Endpoint::Tcp(api.address));
    world.lease(&shop, "9000", Endpoint::Tcp(extra.address));
    world.routes.upsert(shop.clone());
    let alias = |host: &str, target, service| Alias { host: host.to_owned(), target, service };
    world.routes.upsert_alias(alias("www.example.com", AliasTarget::Project(shop.project), None));
    world.routes.upsert_alias(alias(
        "4000__shop.localhost",
        AliasTarget::Deployment(shop.deployment),
        Some(ServiceSelector::Port(4000)),
    ));
    let own = format!("dep-{}", shop.deployment.suffix());
    for (host, expected) in [
        ("shop.localhost", "web"),
        ("SHOP.localHOST.:8080", "web"),
        ("web--shop.localhost", "web"),
        ("api--shop.localhost", "api"),
        ("4000--shop.localhost", "api"),
        ("9000--shop.localhost:80", "extra"),
        (&format!("{own}.localhost"), "web"),
        (&format!("api--{own}.localhost"), "api"),
        ("www.example.com", "web"),
        ("4000__shop.localhost", "api"),
    ] {
        let reply = world.get(host).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, expected), "{host}");
    }
}

#[tokio::test]
async fn browsers_are_sent_on_from_hosts_of_old_and_nobody_else_is() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    world.lease(&shop, "4000", Endpoint::Tcp(origin.address));
    let (machine, gone) = (MachineId::new(), MachineId::new());
    world.routes.replace_machines([
        OldMachine { machine, deployment: Some(shop.deployment) },
        OldMachine { machine: gone, deployment: None },
    ]);
    let own = shop.deployment.suffix();
    let navigation = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n";
    for (host, location) in [
        ("4000__shop.localhost".to_owned(), "//4000--shop.localhost/a/b?c=%20&d".to_owned()),
        ("4000__SHOP.localhost.:8080".to_owned(), "//4000--shop.localhost:8080/a/b?c=%20&d".to_owned()),
        (format!("{machine}.localhost"), format!("//dep-{own}.localhost/a/b?c=%20&d")),
        (format!("{machine}.machines.localhost:81"), format!("//dep-{own}.localhost:81/a/b?c=%20&d")),
    ] {
        let head = format!(" /a/b?c=%20&d HTTP/1.1\r\nHost: {host}\r\n");
        let reply = world.ask(&format!("GET{head}{navigation}\r\n")).await;
        assert_eq!((reply.status, reply.all("location")), (308, vec![location.as_str()]), "{host}");
        assert_eq!(reply.all("cache-control"), ["no-store"]);
        for others in [
            format!("GET{head}\r\n"),
            format!("GET{head}Accept: */*\r\n\r\n"),
            format!("GET{head}Accept: text/html\r\nSec-Fetch-Mode: cors\r\n\r\n"),
            format!("POST{head}{navigation}Content-Length: 2\r\n\r\nhi"),
        ] {
            assert_eq!(world.ask(&others).await.text(), "hello", "{others}");
        }
        let mut client = world.connect().await;
        client.send(format!("HEAD{head}{navigation}\r\n")).await;
        assert_eq!(client.head().await.status, 200);
        let mut client = world.connect().await;
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n";
        client.send(format!("GET{head}{upgrade}{navigation}\r\n")).await;
        assert_ne!(client.head().await.status, 308, "a WebSocket");
    }
    // Served in place: the app sees the host that was asked for.
    assert_eq!(origin.last().all("host"), [format!("{machine}.machines.localhost:81")]);
    for (host, status, code) in [
        (format!("{gone}.localhost"), 410, "machine_gone"),
        (format!("{}.localhost", MachineId::new()), 404, "machine_not_found"),
        ("mach_x.localhost".to_owned(), 400, "invalid_hostname"),
        ("0__shop.localhost".to_owned(), 400, "invalid_port"),
    ] {
        let reply = world.get(&host).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{host}");
    }
}

#[tokio::test]
async fn a_custom_domain_leads_to_its_project_and_to_its_services() {
    let world = World::new().await;
    let web = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb").await;
    let api = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napi").await;
    let mut shop = route("shop");
    shop.services = vec![service("web", 3000), service("api", 4000)];
    world.lease(&shop, "web", Endpoint::Tcp(web.address));
    world.lease(&shop, "api", Endpoint::Tcp(api.address));
    world.lease(&shop, "4096", Endpoint::Tcp(api.address));
    world.routes.upsert(shop.clone());
    for host in ["shop.example.com", "*.wild.example.com"] {
        let target = AliasTarget::Project(shop.project);
        world.routes.upsert_alias(Alias { host: host.to_owned(), target, service: None });
    }
    for (host, expected) in [
        ("shop.example.com", "web"),
        ("Shop.Example.com.:8443", "web"),
        ("api.shop.example.com", "api"),
        ("4000.shop.example.com", "api"),
        ("api--shop.example.com", "api"),
        ("opencode.shop.example.com", "api"),
        ("daemon.shop.example.com", "web"),
        ("anything.wild.example.com", "web"),
        ("api.wild.example.com", "web"),
    ] {
        let reply = world.get(host).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, expected), "{host}");
    }
    for (host, code) in [
        ("nothing.shop.example.com", "service_not_found"),
        ("a.api.shop.example.com", "project_not_found"),
        ("wild.example.com", "project_not_found"),
        ("a.b.wild.example.com", "project_not_found"),
    ] {
        assert_eq!(world.get(host).await.code(), code, "{host}");
    }
    world.routes.remove_alias("*.wild.example.com");
    assert_eq!(world.get("anything.wild.example.com").await.code(), "project_not_found");
}

#[tokio::test]
async fn what_leads_nowhere_is_answered_with_a_stable_code() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    world.set_lease(&shop, "9000", Err(FetchError::NotFound));
    let mut draft = route("draft");
    draft.is_primary = false;
    world.routes.upsert(draft);
    let mut gone = route("gone");
    gone.wanted = Wanted::Destroyed;
    world.routes.upsert(gone);
    let mut off = route("off");
    (off.seen, off.wanted, off.wake) = (Seen::Stopped, Wanted::Stopped, WakePolicy::None);
    world.routes.upsert(off);
    let mut broken = route("broken");
    broken.seen = Seen::Failed;
    world.routes.upsert(broken);
    for (host, status, code) in [
        ("nobody.localhost", 404, "project_not_found"),
        ("localhost", 404, "project_not_found"),
        ("example.com", 404, "project_not_found"),
        ("[::1]:8080", 404, "project_not_found"),
        ("a.shop.localhost", 400, "invalid_hostname"),
        ("x_y.localhost", 400, "invalid_hostname"),
        ("shop..localhost", 400, "invalid_hostname"),
        ("xn--80ak6aa92e.localhost", 400, "invalid_hostname"),
        ("99999--shop.localhost", 400, "invalid_port"),
        ("shop.localhost:99999", 400, "invalid_port"),
        ("draft.localhost", 404, "deployment_not_found"),
        ("gone.localhost", 404, "deployment_not_found"),
        ("dep-01h455vb4pex5vsknk084sn02q.localhost", 404, "deployment_not_found"),
        ("api--shop.localhost", 404, "service_not_found"),
        ("9000--shop.localhost", 404, "service_not_found"),
        ("off.localhost", 503, "deployment_stopped"),
        ("broken.localhost", 503, "deployment_failed"),
    ] {
        let reply = world.get(host).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{host}");
        assert_eq!(reply.all("cache-control"), ["no-store"]);
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_browser_gets_a_page_and_a_program_json() {
    let world = World::new().await;
    let page = world.ask("GET / HTTP/1.1\r\nHost: no.localhost\r\nAccept: text/html,*/*;q=0.8\r\n\r\n").await;
    assert_eq!(page.all("content-type"), ["text/html; charset=utf-8"]);
    assert!(page.text().starts_with("<!doctype html>") && page.text().contains("project_not_found"));
    let id = page.all("x-request-id")[0].to_owned();
    assert!(page.text().contains(&id));
    let json = world.ask("GET / HTTP/1.1\r\nHost: no.localhost\r\nAccept: */*\r\n\r\n").await;
    assert_eq!(
        (json.all("content-type"), json.code()),
        (vec!["application/json"], "project_not_found".to_owned())
    );
    // HEAD has the head only, and the connection goes on.
    let mut client = world.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: no.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.status, 404);
    client.send("GET / HTTP/1.1\r\nHost: no.localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.code(), "project_not_found");
}

#[tokio::test]
async fn a_change_of_routes_is_seen_by_the_next_request_of_a_live_connection() {
    let world = World::new().await;
    let old = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await;
    let new = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew").await;
    let first = world.deploy("shop", old.address);
    let mut client = world.connect().await;
    let ask = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    client.send(ask).await;
    assert_eq!(client.reply().await.text(), "old");
    let mut second = route("shop");
    second.project = first.project;
    world.lease(&second, "web", Endpoint::Tcp(new.address));
    world.routes.upsert(second.clone());
    client.send(ask).await;
    assert_eq!(client.reply().await.text(), "new");
    // The old one keeps its own host.
    let own = format!("dep-{}.localhost", first.deployment.suffix());
    assert_eq!(world.get(&own).await.text(), "old");
    // Rolling back.
    world.routes.upsert(first.clone());
    client.send(ask).await;
    assert_eq!(client.reply().await.text(), "old");
    world.routes.remove(first.deployment);
    client.send(ask).await;
    assert_eq!(client.reply().await.code(), "deployment_not_found");
    world.routes.replace_all(vec![second], Vec::new());
    client.send(ask).await;
    assert_eq!(client.reply().await.text(), "new");
    world.routes.replace_all(Vec::new(), Vec::new());
    client.send(ask).await;
    assert_eq!(client.reply().await.code(), "project_not_found");
}
