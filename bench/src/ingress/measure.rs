//! The run: who is measured when, and for how long.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::handshakes;
use super::instructions;
use super::load::{self, Load, Outcome, Pace, What};
use super::process::{Allowed, Process, Usage};
use super::proxies::{Kind, Running, Yard};
use super::results::{Results, Samples};
use crate::statistics::{percentile, round};

/// Sizes of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub rounds: usize,
    pub quick: bool,
    /// Of the machine; we are bound to one of them.
    pub cores: usize,
    warm: Duration,
    length: Duration,
    /// The window of each question to a route table.
    length_routes: Duration,
    /// How often memory is measured, each time on fresh processes.
    memory_rounds: usize,
    /// Idle connections, where so many files may be open.
    pub held: usize,
    /// Sizes of the route table beside 1.
    routes: Vec<usize>,
    pub to_start: Allowed,
    /// With very many routes.
    to_start_large: Allowed,
    /// After so long nothing more is begun that can be left out.
    ends: Duration,
}

impl Plan {
    pub fn new(quick: bool, rounds: usize) -> Self {
        let allowed = |seconds| Allowed { time: Duration::from_secs(seconds), memory_mib: MOST_MIB };
        if quick {
            Self {
                rounds: 1,
                quick,
                cores: 0,
                warm: Duration::from_millis(100),
                length: Duration::from_millis(300),
                length_routes: Duration::from_millis(300),
                memory_rounds: 1,
                held: 1000,
                routes: vec![10_000],
                to_start: allowed(20),
                to_start_large: allowed(20),
                ends: Duration::from_secs(150),
            }
        } else {
            Self {
                rounds,
                quick,
                cores: 0,
                warm: Duration::from_millis(250),
                length: Duration::from_millis(1200),
                length_routes: Duration::from_millis(800),
                memory_rounds: 2,
                held: 10_000,
                routes: vec![10_000, 1_000_000],
                to_start: allowed(20),
                to_start_large: allowed(60),
                ends: Duration::from_secs(22 * 60),
            }
        }
    }
}

/// What is measured in a round, one after the other.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// Requests over so many connections, one after the other on each.
    Closed(usize),
    /// At a fixed rate.
    Fixed,
    Download,
    Upload,
    Handshakes,
    Messages,
}

const MEASURES: [Measure; 8] = [
    Measure::Closed(64),
    Measure::Closed(16),
    Measure::Closed(1024),
    Measure::Fixed,
    Measure::Download,
    Measure::Upload,
    Measure::Handshakes,
    Measure::Messages,
];

/// So many routes, evenly spread over a table, are asked where all of them are not: what differs then is the look-up,
/// not how many upstreams a pool must reach.
const FEW: usize = 64;

/// What a proxy may take until it answers again after a pause.
const AWAKE: Allowed = Allowed { time: Duration::from_secs(5), memory_mib: u64::MAX };

/// The memory that one proxy may take while it starts.
const MOST_MIB: u64 = 6 * 1024;

/// Requests a second of the open loop.
pub const RATE: f64 = 5_000.0;

/// One run.
pub struct Bench {
    plan: Plan,
    yard: Yard,
    /// Lives as long as the run.
    _upstream: Process,
    upstream: SocketAddr,
    held: usize,
    begun: Instant,
    core: usize,
    samples: Samples,
}

impl Bench {
    pub fn new(
        plan: Plan,
        yard: Yard,
        upstream: Process,
        address: SocketAddr,
        held: usize,
        begun: Instant,
    ) -> Self {
        let core = yard.core();
        Self {
            plan,
            yard,
            _upstream: upstream,
            upstream: address,
            held,
            begun,
            core,
            samples: Samples::default(),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// Where not even the upstream answers.
    pub fn run(mut self, wanted: &[Kind]) -> anyhow::Result<Results> {
        let direct = load::run(&self.load(self.upstream, Measure::Closed(64)), || Ok(()))?;
        let direct_rps = direct.completed as f64 / direct.took.as_secs_f64();
        let mut running = self.start_all(wanted, 1, self.plan.to_start);
        eprintln!("bench: {} proxies, {} rounds", running.len(), self.plan.rounds);
        for round in 0..self.plan.rounds {
            for (turn, measure) in MEASURES.into_iter().enumerate() {
                self.turn(&mut running, round, turn, |bench, proxy| bench.one(proxy, measure, round));
            }
            eprintln!("bench: round {} of {} after {:.0} s", round + 1, self.plan.rounds, self.elapsed());
        }
        self.memory(wanted);
        self.routes(wanted, running);
        self.instructions(wanted);
        let machine = json!({
            "cores": self.plan.cores,
            "processor": processor(),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "load_at_start": load_average(),
        });
        let run = json!({
            "quick": self.plan.quick,
            "rounds": self.plan.rounds,
            "seconds_each": self.plan.length.as_secs_f64(),
            "took_s": round(self.elapsed(), 0),
            "rate": RATE,
            "idle_connections": self.held,
            "direct_requests_per_s": round(direct_rps, 0),
            "machine": machine,
        });
        Ok(self.samples.results(run, wanted, &self.plan.routes, &self.yard))
    }

    fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn start_all(&mut self, wanted: &[Kind], routes: usize, allowed: Allowed) -> Vec<Running> {
        let mut all: Vec<Running> = Vec::new();
        for &kind in wanted {
            match self.yard.start(kind, routes, allowed) {
                Ok(mut running) => {
                    if let Err(reason) = &running.secure {
                        self.samples.note(kind, routes, &format!("no TLS: {reason}"));
                    }
                    self.samples.add(kind, routes, "start_s", 0, running.took.as_secs_f64());
                    running.process.pause();
                    all.push(running);
                }
                Err(error) => {
                    let what =
                        if routes == 1 { "not measured".to_owned() } else { format!("{routes} routes") };
                    eprintln!("bench: {} ({what}): {error:#}", kind.name());
                    self.samples.note(kind, routes, &format!("{what}: {error:#}"));
                }
            }
        }
        all
    }

    /// Lets one after the other run, in an order of this turn; who fails is noted, and left out where it ended.
    fn turn(
        &mut self,
        running: &mut Vec<Running>,
        round: usize,
        turn: usize,
        mut each: impl FnMut(&mut Self, &mut Running) -> anyhow::Result<()>,
    ) {
        let count = running.len();
        for place in 0..count {
            let proxy = &mut running[(place + round + turn) % count];
            proxy.process.go_on();
            // One that measures its own delays may think that it was overloaded, and needs a moment.
            let address = proxy.plain;
            let awake = |_: &Process| load::ask(address, 0, AWAKE.time).is_ok();
            let done = proxy.process.wait(AWAKE, awake).and_then(|_| each(self, proxy));
            proxy.process.pause();
            if let Err(error) = done {
                let (kind, routes) = (proxy.kind, proxy.routes);
                eprintln!("bench: {}: {error:#}", kind.name());
                self.samples.note(kind, routes, &format!("{error:#}"));
            }
        }
        running.retain_mut(|proxy| match proxy.process.ended() {
            Ok(None) => true,
            ended => {
                let how = ended.ok().flatten().map_or_else(String::new, |status| format!(" ({status})"));
                let said = proxy.process.said();
                self.samples.note(proxy.kind, proxy.routes, &format!("it ended within the run{how}: {said}"));
                false
            }
        });
    }

    fn load(&self, address: SocketAddr, measure: Measure) -> Load {
        let (what, connections, pace) = match measure {
            Measure::Closed(connections) => (What::Small, connections, Pace::Closed),
            Measure::Fixed => (What::Small, 64, Pace::Open(RATE)),
            Measure::Download => (What::Download, 4, Pace::Closed),
            Measure::Upload => (What::Upload, 4, Pace::Closed),
            Measure::Messages => (What::Message, 64, Pace::Closed),
            Measure::Handshakes => (What::Small, 16, Pace::Closed),
        };
        Load {
            address,
            what,
            connections,
            routes: 1,
            asked: 1,
            pace,
            warm: self.plan.warm,
            length: self.plan.length,
        }
    }

    fn one(&mut self, proxy: &Running, measure: Measure, round: usize) -> anyhow::Result<()> {
        let outcome = match measure {
            Measure::Handshakes => {
                // That there is none was noted when it started.
                let Ok(address) = proxy.secure else { return Ok(()) };
                handshakes::run(address, self.plan.warm, self.plan.length, || proxy.process.usage())
            }
            other => load::run(&self.load(proxy.plain, other), || proxy.process.usage()),
        };
        let what = match measure {
            Measure::Closed(connections) => format!("{connections} connections"),
            Measure::Fixed => format!("{RATE} requests a second"),
            Measure::Download => "download".to_owned(),
            Measure::Upload => "upload".to_owned(),
            Measure::Handshakes => "TLS".to_owned(),
            Measure::Messages => "WebSocket".to_owned(),
        };
        let outcome = outcome.map_err(|error| error.context(what))?;
        let us = cpu_us(&outcome);
        let seconds = outcome.took.as_secs_f64();
        let each = us / outcome.completed.max(1) as f64;
        let a_second = outcome.completed as f64 / seconds;
        let megabytes = outcome.bytes as f64 / 1e6;
        let mut add = |metric: &str, value: f64| self.samples.add(proxy.kind, 1, metric, round, value);
        match measure {
            Measure::Closed(connections) => {
                add(&format!("cpu_us_c{connections}"), each);
                add(&format!("requests_per_s_c{connections}"), a_second);
                if connections == 16 {
                    add("p50_us_c16", percentile(&outcome.latencies_us, 0.5));
                    add("p99_us_c16", percentile(&outcome.latencies_us, 0.99));
                }
            }
            Measure::Fixed => {
                add("cpu_us_fixed", each);
                add("p50_us", percentile(&outcome.latencies_us, 0.5));
                add("p99_us", percentile(&outcome.latencies_us, 0.99));
                add("requests_per_s_fixed", a_second);
            }
            Measure::Download => {
                add("down_us_per_mb", us / megabytes);
                add("down_mb_per_s", megabytes / seconds);
            }
            Measure::Upload => {
                add("up_us_per_mb", us / megabytes);
                add("up_mb_per_s", megabytes / seconds);
            }
            Measure::Handshakes => {
                add("tls_us_per_handshake", each);
                add("tls_per_s", a_second);
                add("tls_per_s_core", 1e6 / each);
            }
            Measure::Messages => {
                add("ws_us_per_msg", each);
                add("ws_per_s", a_second);
            }
        }
        Ok(())
    }

    /// Fresh processes: idle, after 1,024 busy connections, with many idle ones.
    fn memory(&mut self, wanted: &[Kind]) {
        for round in 0..self.plan.memory_rounds {
            for &kind in wanted {
                if self.yard.tool(kind).is_err() {
                    continue;
                }
                if let Err(error) = self.memory_of(kind, round) {
                    eprintln!("bench: {}: memory: {error:#}", kind.name());
                    self.samples.note(kind, 1, &format!("memory: {error:#}"));
                }
            }
        }
        eprintln!("bench: memory after {:.0} s", self.elapsed());
    }

    fn memory_of(&mut self, kind: Kind, round: usize) -> anyhow::Result<()> {
        let settle = if self.plan.quick { Duration::from_millis(300) } else { Duration::from_secs(1) };
        let mib = |usage: Usage| usage.rss_kib as f64 / 1024.0;
        let running = self.yard.start(kind, 1, self.plan.to_start)?;
        std::thread::sleep(settle);
        let idle = running.process.usage()?;
        self.samples.add(kind, 1, "rss_idle_mb", round, mib(idle));
        let held = load::hold(running.plain, self.held)?;
        std::thread::sleep(settle);
        let with = running.process.usage()?;
        drop(held);
        let each = (with.rss_kib as f64 - idle.rss_kib as f64) / self.held as f64;
        self.samples.add(kind, 1, "rss_held_mb", round, mib(with));
        self.samples.add(kind, 1, "kb_per_conn", round, each);
        drop(running);
        let running = self.yard.start(kind, 1, self.plan.to_start)?;
        let busy = load::run(&self.load(running.plain, Measure::Closed(1024)), || running.process.usage())?;
        self.samples.add(kind, 1, "rss_loaded_mb", round, mib(busy.after));
        Ok(())
    }

    /// Requests with more routes, beside the same with one.
    fn routes(&mut self, wanted: &[Kind], with_one: Vec<Running>) {
        let mut running = with_one;
        running.retain(|proxy| proxy.kind.routes());
        let wanted: Vec<Kind> =
            running.iter().map(|proxy| proxy.kind).filter(|kind| wanted.contains(kind)).collect();
        for routes in self.plan.routes.clone() {
            eprintln!("bench: starting with {routes} routes after {:.0} s", self.elapsed());
            for &kind in &wanted {
                // The tables of the others stay, and the machine must not run out of memory.
                let memory_mib = MOST_MIB.min(available_mib() / 2);
                let allowed = Allowed { memory_mib, ..self.plan.to_start_large };
                let started = self.start_all(&[kind], routes, allowed);
                for proxy in started {
                    if let (Ok(usage), Some(before)) =
                        (proxy.process.usage(), self.samples.median(kind, 1, "rss_idle_mb"))
                    {
                        let rss = usage.rss_kib as f64 / 1024.0;
                        self.samples.add(kind, routes, "rss_idle_mb", 0, rss);
                        let bytes = (rss - before) * 1024.0 * 1024.0 / (routes - 1) as f64;
                        self.samples.add(kind, routes, "bytes_per_route", 0, bytes);
                    }
                    running.push(proxy);
                }
            }
        }
        eprintln!("bench: asking {} tables after {:.0} s", running.len(), self.elapsed());
        for round in 0..self.plan.rounds {
            self.turn(&mut running, round, 0, |bench, proxy| {
                let (kind, routes) = (proxy.kind, proxy.routes);
                for (metric, asked) in [("cpu_us_routes_few", FEW.min(routes)), ("cpu_us_routes", routes)] {
                    let length = bench.plan.length_routes;
                    let load = Load { routes, asked, length, ..bench.load(proxy.plain, Measure::Closed(64)) };
                    let outcome = load::run(&load, || proxy.process.usage())
                        .map_err(|error| error.context(format!("{asked} of {routes} routes")))?;
                    let each = cpu_us(&outcome) / outcome.completed.max(1) as f64;
                    bench.samples.add(kind, routes, metric, round, each);
                    if asked == routes && routes > 1 {
                        bench.samples.add(kind, routes, "cpu_us_c64", round, each);
                    }
                }
                Ok(())
            });
        }
        eprintln!("bench: tables asked after {:.0} s", self.elapsed());
    }

    /// Instructions: of Hythe's own by the size of the table, of the floors beside it.
    fn instructions(&mut self, wanted: &[Kind]) {
        for &kind in wanted.iter().filter(|kind| kind.is_one_process()) {
            let tables: &[usize] = if kind == Kind::HytheT0 { &self.plan.routes } else { &[] };
            for routes in std::iter::once(1).chain(tables.iter().copied()).collect::<Vec<_>>() {
                if self.yard.tool(kind).is_err() {
                    continue;
                }
                if self.begun.elapsed() > self.plan.ends {
                    let why = "instructions: left out, the run would have taken too long";
                    self.samples.note(kind, routes, why);
                    continue;
                }
                let allowed = Allowed { time: Duration::from_secs(150), ..self.plan.to_start };
                let few = FEW.min(routes);
                match instructions::measure(&self.yard, kind, routes, few, allowed, self.core) {
                    Ok([few, all]) => {
                        self.samples.add(kind, routes, "instructions", 0, few);
                        self.samples.add(kind, routes, "instructions_uniform", 0, all);
                    }
                    Err(error) => {
                        eprintln!("bench: {}: instructions: {error:#}", kind.name());
                        self.samples.note(kind, routes, &format!("instructions: {error:#}"));
                    }
                }
            }
        }
        eprintln!("bench: instructions after {:.0} s", self.elapsed());
    }
}

/// Time on a core within the window, in microseconds.
fn cpu_us(outcome: &Outcome<Usage>) -> f64 {
    outcome.after.cpu_ns.saturating_sub(outcome.before.cpu_ns) as f64 / 1e3
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    line.split_once(':').map_or("", |(_, name)| name).trim().to_owned()
}

/// Memory that could be taken without pushing anything out.
fn available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).map_or(MOST_MIB, |kib| kib / 1024)
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default()
}
