//! Decisions about requests: what is kept warm, what ends a call, and what becomes of an adapter that fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapter_runtime::{
    CallCause, Decision, Forwarding, HeaderRef, Limits, Reply, RequestHead, RouteError, Router,
    RoutingComponent, RoutingEvent, RoutingLimits, RoutingTable,
};

use crate::fake_host::{load, runtime_with};

const HEADERS: [HeaderRef<'static>; 3] = [
    HeaderRef { name: "host", value: b"shop.localhost" },
    HeaderRef { name: "cookie", value: b"a=b; x-canary=always" },
    HeaderRef { name: "x-bytes", value: b"\xff\x00" },
];

fn head(path: &str) -> RequestHead<'_> {
    RequestHead {
        deployment_id: "dep_1",
        incarnation: 7,
        service: "web",
        config: "true",
        method: "GET",
        scheme: "https",
        authority: "shop.localhost",
        path_with_query: path,
        headers: &HEADERS,
        client_address: "192.0.2.1",
        now_ms: 1_000,
        random: 42,
    }
}

/// The table with one adapter in it, a router for this thread, and what the host heard.
struct Setting {
    table: Arc<RoutingTable>,
    router: Router,
    events: Arc<Mutex<Vec<RoutingEvent>>>,
}

async fn component(name: &str, limits: RoutingLimits) -> RoutingComponent {
    let runtime = runtime_with(Limits { routing: limits, ..Limits::default() });
    load(&runtime, name).await.routing().unwrap().clone()
}

async fn setting_with(limits: RoutingLimits) -> Setting {
    let events: Arc<Mutex<Vec<RoutingEvent>>> = Arc::default();
    let heard = Arc::clone(&events);
    let table = Arc::new(RoutingTable::new(move |event| heard.lock().unwrap().push(event.clone())));
    table.put("bad", component("bad", limits).await);
    Setting { router: Router::new(Arc::clone(&table)), table, events }
}

async fn setting() -> Setting {
    setting_with(RoutingLimits::default()).await
}

impl Setting {
    fn ask(&mut self, path: &str) -> Result<Decision, RouteError> {
        self.router.route("bad", &head(path))
    }

    /// The text of the adapter's own answer.
    #[track_caller]
    fn text(&mut self, path: &str) -> String {
        match self.ask(path).unwrap() {
            Decision::Respond(Reply { status: 200, body, .. }) => String::from_utf8(body).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// What ended the call, and its repetition.
    #[track_caller]
    fn fails(&mut self, path: &str) -> CallCause {
        match self.ask(path).unwrap_err() {
            RouteError::Failed(error) => {
                assert_eq!((error.adapter.as_str(), error.function), ("bad", "route-http"));
                error.cause
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn traps(&mut self, path: &str, expected: &str) {
        let CallCause::Trap(what) = self.fails(path) else { panic!("no trap") };
        assert!(what.contains(expected), "{what}");
        // And the next one finds a fresh instance.
        assert_eq!(self.text("/count"), "1");
    }

    #[track_caller]
    fn lies(&mut self, path: &str, expected: &str) {
        let error = self.ask(path).unwrap_err();
        assert!(matches!(error, RouteError::Answer(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }

    fn events(&self) -> Vec<&'static str> {
        let events = self.events.lock().unwrap();
        let word = |event: &RoutingEvent| match event {
            RoutingEvent::SwitchedOff { .. } => "off",
            RoutingEvent::SwitchedOn { .. } => "on",
        };
        events.iter().map(word).collect()
    }
}

#[tokio::test]
async fn a_decision_has_the_whole_head_before_it() {
    let mut setting = setting().await;
    assert_eq!(setting.ask("/").unwrap(), Decision::Forward(Forwarding::default()));
    let seen = setting.text("/echo");
    for part in [
        "deployment-id: \"dep_1\"",
        "incarnation: 7",
        "service: \"web\"",
        "config: \"true\"",
        "method: \"GET\"",
        "scheme: \"https\"",
        "authority: \"shop.localhost\"",
        "path-with-query: \"/echo\"",
        "name: \"x-bytes\", value: [255, 0]",
        "client-address: \"192.0.2.1\"",
        "now-ms: 1000",
        "random: 42",
    ] {
        assert!(seen.contains(part), "{part} is not in {seen}");
    }
    let reply = Reply { status: 418, headers: Vec::new(), body: b"short and stout".to_vec() };
    assert_eq!(setting.ask("/tea").unwrap(), Decision::Respond(reply));
    let reply = Reply { status: 204, headers: Vec::new(), body: Vec::new() };
    assert_eq!(setting.ask("/empty").unwrap(), Decision::Respond(reply));
}

#[tokio::test]
async fn an_instance_stays_warm_on_its_thread() {
    let mut setting = setting().await;
    assert_eq!(setting.router.warm(), 0);
    assert_eq!(["/count", "/count", "/count"].map(|path| setting.text(path)), ["1", "2", "3"]);
    assert_eq!(setting.router.warm(), 1);
    let table = Arc::clone(&setting.table);
    std::thread::spawn(move || {
        let mut other = Router::new(table);
        let Decision::Respond(reply) = other.route("bad", &head("/count")).unwrap() else { panic!() };
        assert_eq!(reply.body, b"1");
    })
    .join()
    .unwrap();
    assert_eq!(setting.text("/count"), "4");
}

#[tokio::test]
async fn a_trap_is_met_once_more_by_a_fresh_instance() {
    let mut setting = setting().await;
    assert_eq!(setting.text("/tired"), "fresh");
    // The instance is used now: it traps, and another one answers.
    for _ in 0..10 {
        assert_eq!(setting.text("/tired"), "fresh");
    }
    assert_eq!(setting.text("/count"), "2");
    assert!(setting.events().is_empty());
}

#[tokio::test]
async fn what_a_guest_does_wrong_ends_its_call() {
    let mut setting = setting().await;
    setting.traps("/trap", "wasm `unreachable` instruction executed");
    setting.traps("/panic", "told to panic in route-http");
    setting.traps("/exit", "it ended itself with the exit code");
    setting.traps("/host", "it called hythe:deployment/host@0.1.0#now-ms, which `route-http` must not");
    setting.traps("/sleep", "it called wasi:");
    assert!(setting.events().is_empty());
}

#[tokio::test]
async fn a_loop_is_cut() {
    let mut setting = setting().await;
    let limit = RoutingLimits::default().computing;
    assert_eq!(setting.fails("/loop"), CallCause::Computing { limit });
    assert_eq!(setting.text("/count"), "1");
    assert_eq!(setting.fails("/fill"), CallCause::Computing { limit });
    assert_eq!(setting.text("/count"), "1");
}

/// Time that does not matter, where another bound is meant.
fn patient() -> RoutingLimits {
    RoutingLimits { computing: Duration::from_secs(20), ..RoutingLimits::default() }
}

#[tokio::test]
async fn a_memory_bomb_and_a_flood_of_calls() {
    let mut setting = setting_with(patient()).await;
    assert_eq!(setting.fails("/memory"), CallCause::OutOfMemory { limit_bytes: 16 << 20 });
    assert_eq!(setting.text("/count"), "1");
    assert_eq!(setting.fails("/host-calls"), CallCause::HostCalls { limit: 256 });
    assert_eq!(setting.text("/count"), "1");
}

#[tokio::test]
async fn ordinary_toolchain_output_finds_what_it_expects() {
    let limits = RoutingLimits { host_calls: 10_000, ..patient() };
    let mut setting = setting_with(limits).await;
    assert_eq!(setting.text("/say"), "said");
    assert_eq!(setting.text("/flood"), "flooded");
    assert!(setting.text("/clock").starts_with("true RandomState"));
    assert!(!setting.text("/files").contains("root"));
    assert_eq!(setting.text("/count"), "5");
}

#[tokio::test]
async fn an_answer_that_the_contract_does_not_allow() {
    let mut setting = setting_with(patient()).await;
    setting.lies("/status", "the status 101: it must be from 200 to 599");
    setting.lies("/huge", "a body of 102400 bytes: at most 65536 are allowed");
    setting.lies("/too-huge", "more than 256 KiB at once");
    setting.lies("/line-break", "the header \"x-a\" has a line break or NUL in its value");
    setting.lies("/path", "\"/a b\" can't be a path");
    // Wrong, and no reason to stop asking.
    assert!(setting.events().is_empty());
    assert!(!setting.table.is_off("bad"));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_not_put_before_it() {
    let mut setting = setting_with(RoutingLimits { head_bytes: 1_000, ..RoutingLimits::default() }).await;
    let path = format!("/{}", "x".repeat(1_000));
    let error = setting.ask(&path).unwrap_err();
    assert!(matches!(error, RouteError::Head { limit: 1_000, .. }), "{error:?}");
}

#[tokio::test]
async fn three_failures_in_a_row_switch_it_off() {
    let mut setting = setting().await;
    setting.table.put("good", component("canary-adapter", RoutingLimits::default()).await);
    // With a decision between them, there is no end of failures.
    for _ in 0..3 {
        setting.fails("/trap");
        setting.fails("/loop");
        assert_eq!(setting.text("/count"), "1");
    }
    assert!(setting.events().is_empty());
    // On whatever thread.
    setting.fails("/trap");
    let table = Arc::clone(&setting.table);
    std::thread::spawn(move || Router::new(table).route("bad", &head("/trap")).unwrap_err()).join().unwrap();
    assert!(!setting.table.is_off("bad"));
    setting.fails("/loop");
    assert!(setting.table.is_off("bad"));
    assert_eq!(setting.ask("/count").unwrap_err(), RouteError::Off { adapter: "bad".to_owned() });
    assert_eq!(setting.events(), ["off"]);
    let RoutingEvent::SwitchedOff { adapter, sha256, error } = setting.events.lock().unwrap()[0].clone()
    else {
        panic!("on");
    };
    assert_eq!((adapter.as_str(), Some(sha256)), ("bad", setting.table.sha256("bad")));
    assert!(matches!(error.cause, CallCause::Computing { .. }));
    // Another adapter does not notice.
    assert!(matches!(setting.router.route("good", &head("/")).unwrap(), Decision::Forward(_)));
}

#[tokio::test]
async fn what_is_off_is_let_try_after_a_time() {
    let mut setting = setting_with(RoutingLimits { off: Duration::ZERO, ..RoutingLimits::default() }).await;
    for _ in 0..5 {
        setting.fails("/trap");
    }
    assert_eq!(setting.events(), ["off"]);
    assert_eq!(setting.text("/count"), "1");
    assert!(!setting.table.is_off("bad"));
    assert_eq!(setting.events(), ["off", "on"]);
}

#[tokio::test]
async fn another_version_takes_over_and_can_be_rolled_back() {
    let mut setting = setting().await;
    assert_eq!(setting.text("/count"), "1");
    let old = setting.table.sha256("bad").unwrap();
    assert_eq!(setting.table.roll_back("bad", &old), None);

    setting.table.put("bad", component("canary-adapter", RoutingLimits::default()).await);
    let new = setting.table.sha256("bad").unwrap();
    assert_ne!(new, old);
    assert_eq!(setting.ask("/count").unwrap(), Decision::Forward(Forwarding::default()));
    assert_eq!(setting.router.warm(), 1);

    assert_eq!(setting.table.roll_back("bad", &old), None, "that is not the present one");
    assert_eq!(setting.table.roll_back("bad", &new), Some(old));
    assert_eq!(setting.text("/count"), "1");

    // The same again is not a version to roll back to; but it begins with a clean record.
    for _ in 0..3 {
        setting.fails("/trap");
    }
    assert!(setting.table.is_off("bad"));
    setting.table.put("bad", component("bad", RoutingLimits::default()).await);
    assert_eq!(setting.text("/count"), "1");
    let present = setting.table.sha256("bad").unwrap();
    assert_eq!(setting.table.roll_back("bad", &present), None);

    setting.table.remove("bad");
    assert_eq!(setting.ask("/count").unwrap_err(), RouteError::Unknown { adapter: "bad".to_owned() });
    assert_eq!(setting.router.warm(), 0);
}

#[tokio::test]
async fn the_canary_adapter_decides() {
    let mut setting = setting().await;
    setting.table.put("canary", component("canary-adapter", RoutingLimits::default()).await);
    let mut decide = |config: &str, path: &str, headers: &[HeaderRef<'_>]| {
        let head = RequestHead { config, headers, ..head(path) };
        setting.router.route("canary", &head).unwrap()
    };
    let paths = r#"{"paths": [{"prefix": "/api", "service": "api", "strip": true}, {"prefix": "/old/", "service": "old"}]}"#;
    let to = |service: &str, path: Option<&str>| {
        Decision::Forward(Forwarding {
            service: Some(service.to_owned()),
            path_with_query: path.map(str::to_owned),
            ..Forwarding::default()
        })
    };
    assert_eq!(decide(paths, "/api/users?x=1", &[]), to("api", Some("/users?x=1")));
    assert_eq!(decide(paths, "/api?x=1", &[]), to("api", Some("/?x=1")));
    assert_eq!(decide(paths, "/old/page", &[]), to("old", None));
    assert_eq!(decide(paths, "/apiary", &[]), Decision::Forward(Forwarding::default()));

    let canary = r#"{"canary": {"service": "next", "percent": 0}}"#;
    let service = |decision: Decision| match decision {
        Decision::Forward(forwarding) => forwarding.service,
        Decision::Respond(_) => panic!("an answer"),
    };
    assert_eq!(service(decide(canary, "/", &HEADERS)), Some("next".to_owned()), "by the cookie");
    let never = HeaderRef { name: "x-canary", value: b"never" };
    assert_eq!(service(decide(canary, "/", &[never])), None);
    assert_eq!(service(decide(canary, "/", &[])), None, "by its share");
    let all = r#"{"canary": {"service": "next", "percent": 100}}"#;
    assert_eq!(service(decide(all, "/", &[])), Some("next".to_owned()));

    let Decision::Respond(reply) = decide(r#"{"closed": "Back at noon."}"#, "/", &[]) else { panic!() };
    assert_eq!((reply.status, reply.body.as_slice()), (503, &b"Back at noon."[..]));
}

/// Resident memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_stays_flat_over_swaps() {
    let runtime = runtime_with(Limits::default());
    let table = Arc::new(RoutingTable::new(|_| {}));
    let mut router = Router::new(Arc::clone(&table));
    let mut swap = async |swaps: usize| {
        for swap in 0..swaps {
            // Loaded anew each time, as an operator does.
            let name = ["bad", "canary-adapter"][swap % 2];
            table.put("mine", load(&runtime, name).await.routing().unwrap().clone());
            router.route("mine", &head("/")).unwrap();
        }
    };
    swap(50).await;
    let before = resident();
    swap(200).await;
    let grown = resident().saturating_sub(before);
    // One version's machine code and instance are more than a MiB.
    assert!(grown < 32 << 20, "{} MiB more after 200 swaps", grown >> 20);
}
