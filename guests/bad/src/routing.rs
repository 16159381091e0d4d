//! Decisions about requests, good and bad ones, by the request's path.

use std::cell::Cell;
use std::time::Duration;

use crate::Bad;
use crate::bindings::exports::hythe::deployment::http_routing::{Decision, Forwarding, Guest, Head, Reply};
use crate::bindings::hythe::deployment::host;
use crate::bindings::hythe::deployment::types::Header;

thread_local! {
    /// Calls on this instance.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

fn forward() -> Forwarding {
    Forwarding {
        deployment_id: None,
        service: None,
        path_with_query: None,
        remove_headers: Vec::new(),
        set_headers: Vec::new(),
        extensions: Vec::new(),
    }
}

fn text(status: u16, text: impl Into<String>) -> Decision {
    Decision::Respond(Reply { status, headers: Vec::new(), body: text.into().into_bytes() })
}

fn set(name: &str, value: &[u8]) -> Decision {
    let header = Header { name: name.to_owned(), value: value.to_vec() };
    Decision::Forward(Forwarding { set_headers: vec![header], ..forward() })
}

#[expect(clippy::print_stderr, reason = "the fault that is asked for")]
impl Guest for Bad {
    fn route_http(head: Head) -> Decision {
        let calls = CALLS.get() + 1;
        CALLS.set(calls);
        match head.path_with_query.as_str() {
            // Good ones.
            "/count" => text(200, calls.to_string()),
            "/echo" => text(200, format!("{head:?}")),
            "/tea" => text(418, "short and stout"),
            "/empty" => text(204, ""),
            "/say" => {
                eprintln!("one line");
                text(200, "said")
            }
            "/clock" => {
                let (begun, seed) = (std::time::Instant::now(), std::hash::RandomState::new());
                text(200, format!("{:?} {seed:?}", begun.elapsed() < Duration::from_secs(60)))
            }
            "/files" => {
                text(200, std::fs::read("/etc/passwd").map_or_else(|e| e.to_string(), |_| "?".to_owned()))
            }
            // Bad ones.
            "/trap" => crate::trap(),
            // Only the first call on an instance is a good one.
            "/tired" if calls > 1 => crate::trap(),
            "/tired" => text(200, "fresh"),
            "/panic" => panic!("told to panic in route-http"),
            "/loop" => loop {
                std::hint::black_box(calls);
            },
            "/fill" => {
                let mut block = vec![0_u8; 8 << 20];
                loop {
                    std::hint::black_box(&mut block).fill(1);
                }
            }
            "/memory" => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    // Untouched pages: it is the bound on memory that ends it, not the one on time.
                    hoard.push(std::hint::black_box(Vec::with_capacity(1 << 20)));
                }
            }
            "/host-calls" => loop {
                std::hint::black_box(std::time::Instant::now());
            },
            "/sleep" => {
                std::thread::sleep(Duration::from_secs(1));
                text(200, "slept")
            }
            "/host" => text(200, host::now_ms().to_string()),
            "/flood" => {
                (0..1_000).for_each(|line| eprintln!("flood {line}"));
                text(200, "flooded")
            }
            "/exit" => std::process::exit(3),
            // Lies.
            "/status" => text(101, ""),
            "/huge" => text(200, "x".repeat(100 << 10)),
            "/too-huge" => text(200, "x".repeat(1 << 20)),
            "/length" => set("content-length", b"3"),
            "/claim" => set("X_Forwarded-For", b"10.0.0.1"),
            "/line-break" => set("x-a", b"1\r\nx-b: 2"),
            "/path" => {
                Decision::Forward(Forwarding { path_with_query: Some("/a b".to_owned()), ..forward() })
            }
            "/nowhere" => Decision::Forward(Forwarding { service: Some("nowhere".to_owned()), ..forward() }),
            _ => Decision::Forward(forward()),
        }
    }
}
