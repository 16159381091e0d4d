//! What a decision about a request costs, with a component that exports `http-routing`; prints one JSON object:
//! `cargo run --release -p adapter-runtime --example routing-cost -- FILE [CONFIG]`.
//!
//! `CONFIG` is what the fetcher's extension `http-routing` would be. Times are of one thread, the median of
//! rounds; memory is the whole process's resident memory, in MiB.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter_runtime::{
    Adapter, AdapterRuntime, HeaderRef, RequestHead, Router, RoutingLimits, RoutingTable, RuntimeConfig,
};

/// What a browser sends, and what ingress adds.
const HEADERS: [HeaderRef<'static>; 12] = [
    HeaderRef { name: "host", value: b"shop.apps.example.com" },
    HeaderRef {
        name: "user-agent",
        value: b"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    },
    HeaderRef { name: "accept", value: b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" },
    HeaderRef { name: "accept-language", value: b"en-GB,en;q=0.5" },
    HeaderRef { name: "accept-encoding", value: b"gzip, deflate, br, zstd" },
    HeaderRef { name: "cookie", value: b"session=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b; theme=dark" },
    HeaderRef { name: "x-forwarded-for", value: b"192.0.2.17" },
    HeaderRef { name: "x-forwarded-proto", value: b"https" },
    HeaderRef { name: "x-forwarded-host", value: b"shop.apps.example.com" },
    HeaderRef { name: "forwarded", value: b"for=192.0.2.17;host=\"shop.apps.example.com\";proto=https" },
    HeaderRef { name: "x-request-id", value: b"4bf92f3577b34da6a3ce929d0e0e4736" },
    HeaderRef { name: "traceparent", value: b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
];

const ROUNDS: usize = 9;
const CALLS: u32 = 20_000;
const FRESH: u32 = 500;
const SWAPS: usize = 1_000;
const WORKERS: usize = 8;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else {
        eprintln!("give the component's file: routing-cost FILE [CONFIG]");
        return ExitCode::from(2);
    };
    let config = arguments.next().unwrap_or_else(|| "null".to_owned());
    match measure(&file, &config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(file: &str, config: &str) -> Outcome<()> {
    let bytes = std::fs::read(file)?;
    let head = RequestHead {
        deployment_id: "dep_01k9x2h0m4f5qsb3v6t7w8y9za",
        incarnation: 1,
        service: "web",
        config,
        method: "GET",
        scheme: "https",
        authority: "shop.apps.example.com",
        path_with_query: "/products/17?colour=blue",
        headers: &HEADERS,
        client_address: "192.0.2.17",
        now_ms: 1_790_000_000_000,
        random: 42,
    };
    let folder = tempfile::tempdir()?;
    let mut limits = adapter_runtime::Limits::default();
    // Failures are not what is measured.
    limits.routing = RoutingLimits { failures: u32::MAX, ..limits.routing };
    let runtime = AdapterRuntime::new(RuntimeConfig {
        cache_dir: Some(folder.path().join("compiled")),
        limits,
        compiler: None,
    })?;
    let load = async || -> Outcome<Arc<Adapter>> { Ok(runtime.load("measured", &bytes).await?) };
    let adapter = load().await?;
    let component = adapter.routing().ok_or("it does not export http-routing")?.clone();
    let table = Arc::new(RoutingTable::new(|_| {}));
    table.put("measured", component.clone());

    let idle = resident()?;
    let mut router = Router::new(Arc::clone(&table));
    router.route("measured", &head)?;
    let (mut warm, mut fresh) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(router.route("measured", &head)?);
        }
        warm.push(begun.elapsed() / CALLS);
        let mut spent = Duration::ZERO;
        for _ in 0..FRESH {
            // The same version put in again: the instance is dropped, and made at the next request.
            table.put("measured", component.clone());
            let begun = Instant::now();
            std::hint::black_box(router.route("measured", &head)?);
            spent += begun.elapsed();
        }
        fresh.push(spent / FRESH);
    }

    let before = resident()?;
    let mut others = Vec::new();
    for _ in 0..WORKERS {
        let mut other = Router::new(Arc::clone(&table));
        for _ in 0..1_000 {
            other.route("measured", &head)?;
        }
        others.push(other);
    }
    let a_worker = (resident()? - before) / WORKERS as f64;
    drop(others);

    let mut swaps = vec![resident()?];
    for swap in 1..=SWAPS {
        let adapter = load().await?;
        table.put("measured", adapter.routing().ok_or("no routing")?.clone());
        router.route("measured", &head)?;
        if swap % (SWAPS / 10) == 0 {
            swaps.push(resident()?);
        }
    }
    let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
    println!(
        "{}",
        serde_json::json!({
            "file": file,
            "headers": HEADERS.len(),
            "warm_us": rounded(median_us(warm)),
            "fresh_us": rounded(median_us(fresh)),
            "rss_idle_mib": rounded(idle),
            "rss_a_worker_mib": rounded(a_worker),
            "swaps": SWAPS,
            "rss_over_swaps_mib": swaps.into_iter().map(rounded).collect::<Vec<_>>(),
        })
    );
    Ok(())
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Resident memory of this process, in MiB; 0 where the system does not say.
fn resident() -> Outcome<f64> {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else { return Ok(0.0) };
    let pages: f64 = statm.split(' ').nth(1).ok_or("no resident memory in statm")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64 / f64::from(1 << 20))
}
