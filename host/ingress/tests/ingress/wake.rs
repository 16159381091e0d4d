//! Deployments that sleep.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use ingress::{DeploymentRoute, Endpoint, FetchError, Lease, WakeError};
use model::{Seen, WakePolicy, Wanted};

use crate::origin::{HELLO, Origin};
use crate::world::{Raw, World, route, within};

const ASK: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
const BROWSER: &str =
    "GET / HTTP/1.1\r\nHost: shop.localhost\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n\r\n";

async fn asleep(world: &World, origin: &Origin) -> DeploymentRoute {
    let mut shop = route("shop");
    (shop.seen, shop.wanted) = (Seen::Stopped, Wanted::Stopped);
    shop.incarnation = 2;
    world.lease(&shop, "web", Endpoint::Tcp(origin.address));
    shop.incarnation = 1;
    world.routes.upsert(shop.clone());
    shop
}

/// What the reconciler does after a wake.
fn start(world: &World, shop: &mut DeploymentRoute) {
    (shop.seen, shop.wanted, shop.incarnation) = (Seen::Starting, Wanted::Running, 2);
    world.routes.upsert(shop.clone());
    shop.seen = Seen::Running;
    world.routes.upsert(shop.clone());
}

#[tokio::test]
async fn fifty_requests_wake_once_and_all_are_served() {
    let mut world = World::with(|config| config.workers = 2).await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    let mut clients = join_all((0..50).map(|_| world.connect())).await;
    for client in &mut clients {
        client.send(ASK).await;
    }
    assert_eq!(within(world.wakes.recv()).await, Some(shop.deployment));
    let all_wait = async {
        while world.routes.activity(shop.deployment).unwrap().open_requests < 50 {
            tokio::task::yield_now().await;
        }
    };
    within(all_wait).await;
    world.waker.gate.add_permits(100);
    start(&world, &mut shop);
    for client in &mut clients {
        assert_eq!(client.reply().await.text(), "hello");
    }
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 1);
    assert_eq!(world.source.asked.load(Ordering::SeqCst), 1, "one lease for all");
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let mut world = World::with(|config| config.wake_queue = 3).await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = world.connect().await;
        client.send(ASK).await;
        waiting.push(client);
    }
    within(world.wakes.recv()).await;
    let all_wait = async {
        while world.routes.activity(shop.deployment).unwrap().open_requests < 3 {
            tokio::task::yield_now().await;
        }
    };
    within(all_wait).await;
    let refused = world.ask(ASK).await;
    assert_eq!(
        (refused.status, refused.code().as_str(), refused.all("retry-after")),
        (503, "overloaded", vec!["2"])
    );
    world.waker.gate.add_permits(1);
    start(&world, &mut shop);
    for client in &mut waiting {
        assert_eq!(client.reply().await.text(), "hello");
    }
    // Seats are given back.
    assert_eq!(world.ask(ASK).await.text(), "hello");
}

#[tokio::test]
async fn a_failed_start_is_told_and_not_tried_again_at_once() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    asleep(&world, &origin).await;
    world.waker.gate.add_permits(10);
    *world.waker.answer.lock() = Err(WakeError::Failed("exit 1 with the secret".to_owned()));
    for _ in 0..3 {
        let reply = world.ask(ASK).await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "deployment_failed"));
        assert!(!reply.text().contains("secret"));
    }
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 1);
    let world = World::new().await;
    asleep(&world, &origin).await;
    world.waker.gate.add_permits(10);
    *world.waker.answer.lock() = Err(WakeError::Refused("archived".to_owned()));
    assert_eq!(world.ask(ASK).await.code(), "deployment_stopped");
}

#[tokio::test]
async fn who_waits_too_long_is_told_to_come_back() {
    let mut world = World::with(|config| {
        config.wake_timeout = Duration::from_millis(50);
        config.wake_page_after = Duration::ZERO;
    })
    .await;
    let origin = Origin::saying(HELLO).await;
    asleep(&world, &origin).await;
    let reply = world.ask(ASK).await;
    assert_eq!(
        (reply.status, reply.code().as_str(), reply.all("retry-after")),
        (503, "deployment_starting", vec!["2"])
    );
    within(world.wakes.recv()).await;
    // A browser sees a page that loads itself again.
    let page = world.ask(BROWSER).await;
    assert_eq!((page.status, page.all("content-type")), (503, vec!["text/html; charset=utf-8"]));
    assert!(page.text().contains("<noscript><meta http-equiv=\"refresh\""), "{}", page.text());
    let policy = page.all("content-security-policy").join("");
    assert!(policy.contains("script-src 'sha256-") && !policy.contains("unsafe-inline' 'sha"), "{policy}");
    // The start goes on although nobody waits; it was asked for once.
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_prefetch_wakes_nothing_and_never_means_never() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    let prefetch = BROWSER.replace("navigate", "navigate\r\nSec-Purpose: prefetch;prerender");
    let reply = world.ask(&prefetch).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("deployment_stopped"));
    shop.wake = WakePolicy::None;
    world.routes.upsert(shop);
    assert_eq!(world.ask(ASK).await.code(), "deployment_stopped");
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 0);
}

const POLL: &str = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nHythe-Waiting: 1\r\n\r\n";

#[tokio::test]
async fn a_browser_gets_a_page_that_becomes_the_app_while_others_wait() {
    let mut world = World::with(|config| config.wake_page_after = Duration::ZERO).await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    assert_eq!(world.ask(POLL).await.all("hythe-state"), ["deployment_stopped"]);
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 0, "a poll wakes nothing");
    let mut program = world.connect().await;
    program.send(ASK).await;
    assert_eq!(within(world.wakes.recv()).await, Some(shop.deployment));
    let page = world.ask(BROWSER).await;
    assert_eq!((page.status, page.all("retry-after")), (503, vec!["2"]));
    assert!(page.text().contains("Hythe-Waiting"), "{}", page.text());
    let poll = world.ask(POLL).await;
    assert_eq!((poll.status, poll.all("hythe-state")), (503, vec!["deployment_starting"]));
    let before = world.routes.activity(shop.deployment).unwrap();
    assert_eq!(before.open_requests, 1, "the program's");
    world.waker.gate.add_permits(1);
    start(&world, &mut shop);
    assert_eq!(program.reply().await.text(), "hello");
    let mut poll = world.connect().await;
    poll.send(POLL).await;
    let poll = poll.head().await;
    assert_eq!((poll.status, poll.all("hythe-state")), (204, vec!["ready"]));
    assert_eq!(world.ask(BROWSER).await.text(), "hello");
    assert_eq!((world.waker.count.load(Ordering::SeqCst), origin.count()), (1, 2), "no poll reached the app");
}

#[tokio::test]
async fn a_failed_start_is_shown_to_a_waiting_page() {
    let world = World::with(|config| config.wake_page_after = Duration::ZERO).await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    (shop.seen, shop.wanted) = (Seen::Failed, Wanted::Running);
    world.routes.upsert(shop);
    assert_eq!(world.ask(POLL).await.all("hythe-state"), ["deployment_failed"]);
    let page = world.ask(BROWSER).await.text();
    assert!(
        page.contains("deployment_failed") && !page.contains("<script>"),
        "it does not load itself again: {page}"
    );
}

#[tokio::test]
async fn blocking_holds_browsers_too() {
    let mut world = World::with(|config| config.wake_page_after = Duration::ZERO).await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    shop.wake = WakePolicy::Blocking;
    world.routes.upsert(shop.clone());
    let mut browser = world.connect().await;
    browser.send(BROWSER).await;
    within(world.wakes.recv()).await;
    world.waker.gate.add_permits(1);
    start(&world, &mut shop);
    assert_eq!(browser.reply().await.text(), "hello");
}

#[tokio::test]
async fn monitors_and_prefetches_are_served_but_are_no_activity_and_wake_nothing() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = world.deploy("shop", origin.address);
    let quiet = [
        ASK.replace("\r\n\r\n", "\r\nUser-Agent: kube-probe/1.33\r\n\r\n"),
        ASK.replace("\r\n\r\n", "\r\nUser-Agent: Mozilla/5.0+(compatible; UptimeRobot/2.0)\r\n\r\n"),
        ASK.replace("\r\n\r\n", "\r\nSec-Purpose: prefetch\r\n\r\n"),
    ];
    for request in &quiet {
        assert_eq!(world.ask(request).await.text(), "hello");
    }
    assert_eq!(world.routes.activity(shop.deployment).unwrap().last, None);
    assert_eq!(world.ask(ASK).await.text(), "hello");
    let last = world.routes.activity(shop.deployment).unwrap().last;
    assert!(last.is_some());
    (shop.seen, shop.wanted) = (Seen::Stopped, Wanted::Stopped);
    world.routes.upsert(shop.clone());
    for request in &quiet {
        assert_eq!(world.ask(request).await.code(), "deployment_stopped");
    }
    // On its way already: they don't wait.
    (shop.seen, shop.wanted) = (Seen::Starting, Wanted::Running);
    world.routes.upsert(shop.clone());
    assert_eq!(world.ask(&quiet[0]).await.code(), "deployment_starting");
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 0);
    assert_eq!(world.routes.activity(shop.deployment).unwrap().last, last);
}

#[tokio::test]
async fn what_is_about_to_stop_takes_no_new_request() {
    let mut world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = world.deploy("shop", origin.address);
    assert_eq!(world.ask(ASK).await.text(), "hello");
    shop.wanted = Wanted::Stopped;
    world.routes.upsert(shop.clone());
    let mut held = world.connect().await;
    held.send(ASK).await;
    assert_eq!(within(world.wakes.recv()).await, Some(shop.deployment));
    assert_eq!(origin.count(), 1, "it is not given to what ends");
    // The stop was called off.
    world.waker.gate.add_permits(1);
    shop.wanted = Wanted::Running;
    world.routes.upsert(shop.clone());
    assert_eq!(held.reply().await.text(), "hello");
    // What no request starts is served to its end.
    (shop.wanted, shop.wake) = (Wanted::Stopped, WakePolicy::None);
    world.routes.upsert(shop);
    assert_eq!(world.ask(ASK).await.text(), "hello");
}

#[tokio::test]
async fn a_request_waits_through_a_restart_and_until_the_app_takes_requests() {
    let world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = world.deploy("shop", origin.address);
    assert_eq!(world.ask(ASK).await.text(), "hello");
    (shop.seen, shop.incarnation) = (Seen::Starting, 2);
    world.routes.upsert(shop.clone());
    let mut client = world.connect().await;
    client.send(ASK).await;
    let waits = async {
        while world.routes.activity(shop.deployment).unwrap().open_requests < 1 {
            tokio::task::yield_now().await;
        }
    };
    within(waits).await;
    // It runs, but its lease is not there yet.
    let busy = FetchError::Busy { retry_after: Duration::from_millis(20) };
    world.set_lease(&shop, "web", Err(busy));
    shop.seen = Seen::Running;
    world.routes.upsert(shop.clone());
    let asked = async {
        while world.source.asked.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    };
    within(asked).await;
    world.set_lease(&shop, "web", Ok(Lease::new(Endpoint::Tcp(origin.address), 2)));
    assert_eq!(client.reply().await.text(), "hello");
    assert_eq!(world.waker.count.load(Ordering::SeqCst), 0, "it was wanted already");
}

#[tokio::test]
async fn a_body_waits_with_its_request() {
    let mut world = World::new().await;
    let origin = Origin::saying(HELLO).await;
    let mut shop = asleep(&world, &origin).await;
    let mut client: Raw = world.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 8\r\n\r\nhalf").await;
    within(world.wakes.recv()).await;
    world.waker.gate.add_permits(1);
    start(&world, &mut shop);
    client.send("half").await;
    assert_eq!(client.reply().await.text(), "hello");
    assert_eq!(origin.last().body, b"halfhalf");
}
