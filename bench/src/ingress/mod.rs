//! `./x bench ingress`: Hythe's ingress beside its peers.
//!
//! All in one run, round by round, the order turned in each. A proxy is alone on its core: the others are paused
//! (SIGSTOP) while it is measured; generator and upstream share another core. The trusted figure is processor time of
//! the proxy's process tree for one request; ratios are taken within a round, then their median. What a proxy can't do
//! is a note in its row, never the end of the run.
//!
//! Absent on purpose: networks (all is on the loopback), HTTP/2 (its peers' costs differ by kind, not by degree), and
//! more than one worker.

mod configs;
mod handshakes;
mod instructions;
mod l4;
mod load;
mod measure;
mod page;
mod plot;
mod poll;
mod process;
mod proxies;
mod raw_hyper;
mod results;
mod setup;
mod upstream;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use measure::{Bench, Plan};
use process::{Process, Start};
use proxies::{Hythe, Kind, Yard};
use results::Results;

/// The first part of the other routes' hosts: `other-0.localhost` and on.
const OTHER: &str = "other-";

/// The hosts of so many routes; the first one is `bench.localhost`.
fn names(routes: usize) -> impl Iterator<Item = String> {
    let others = (0..routes.saturating_sub(1)).map(|number| format!("{OTHER}{number}.localhost"));
    std::iter::once("bench.localhost".to_owned()).take(routes).chain(others)
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    hythe: Hythe,
    /// Folder where peers are unpacked, and kept for the next time
    #[arg(long)]
    peers: PathBuf,
    /// Folder of the results
    #[arg(long)]
    results: PathBuf,
    /// Folder of the page
    #[arg(long)]
    docs: PathBuf,
    #[command(flatten)]
    selection: Selection,
}

/// What a person chooses.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Only these proxies, with commas between them
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds of everything that is repeated
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A smoke run of a few minutes: one short round, fewer connections and routes; its results go to
    /// `ingress-quick.json` and no page is written
    #[arg(long)]
    quick: bool,
    /// Measure nothing: write the page again from the results
    #[arg(long)]
    page: bool,
}

/// Programs that the measurement starts of itself.
#[derive(Debug, Subcommand)]
pub enum Program {
    /// The application behind every proxy
    #[command(hide = true)]
    Upstream { port: u16 },
    /// Copies bytes: the floor of floors
    #[command(hide = true)]
    L4 { port: u16, upstream: u16 },
    /// A plain hyper proxy
    #[command(hide = true)]
    RawHyper(raw_hyper::Arguments),
    /// Asks a proxy on a port of 127.0.0.1, for profiling it by hand: prints requests a second and latencies
    #[command(hide = true)]
    Load {
        port: u16,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Routes of its table
        #[arg(long, default_value_t = 1)]
        routes: usize,
        /// How many of them are asked
        #[arg(long, default_value_t = 1)]
        asked: usize,
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Binds itself to a core and becomes a program
    #[command(hide = true)]
    Pinned {
        core: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

impl Program {
    /// Runs it; most never return.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Upstream { port } => upstream::run(port),
            Self::L4 { port, upstream } => l4::run(port, upstream),
            Self::RawHyper(arguments) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(raw_hyper::run(&arguments))
            }
            Self::Load { port, connections, routes, asked, seconds } => {
                let length = std::time::Duration::from_secs_f64(seconds);
                let (address, warm) = (process::local(port), length / 10);
                let (what, pace) = (load::What::Small, load::Pace::Closed);
                ensure!(asked >= 1 && asked <= routes, "--asked must be from 1 to --routes");
                let load = load::Load { address, what, connections, routes, asked, pace, warm, length };
                let outcome = load::run(&load, || Ok(()))?;
                let percentile = |share| crate::statistics::percentile(&outcome.latencies_us, share);
                eprintln!(
                    "{} requests, {:.0}/s, p50 {:.0} µs, p99 {:.0} µs",
                    outcome.completed,
                    outcome.completed as f64 / outcome.took.as_secs_f64(),
                    percentile(0.5),
                    percentile(0.99)
                );
                Ok(())
            }
            Self::Pinned { core, command } => process::become_pinned(core, &command),
        }
    }
}

/// Measures, writes the results and the page.
///
/// # Errors
/// Where nothing can be measured at all, or the results can't be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let selection = &arguments.selection;
    let file = arguments.results.join(if selection.quick { "ingress-quick.json" } else { "ingress.json" });
    if selection.page {
        return page::write(&Results::read(&file)?, &arguments.docs);
    }
    ensure!(selection.rounds > 0, "--rounds must be at least 1");
    let mut wanted = Vec::new();
    for name in &selection.only {
        let known = || proxies::ALL.map(Kind::name).join(", ");
        wanted.push(
            Kind::named(name).with_context(|| format!("--only: there is no {name}, only {}", known()))?,
        );
    }
    if wanted.is_empty() {
        wanted.extend(proxies::ALL);
    }
    let begun = Instant::now();
    let mut plan = Plan::new(selection.quick, selection.rounds);
    end_with_us()?;
    let files = process::raise_open_files();
    // An L4 proxy has two sockets a connection, and each program a few more of its own.
    let held = plan.held.min(usize::try_from(files.saturating_sub(500) / 2)?);
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("this machine has one core; a proxy must have one of its own");
    }
    let (own_core, proxy_core) = (0, cores - 1);
    process::bind_to(own_core)?;
    plan.cores = cores;

    let folder = tempfile::Builder::new().prefix("hythe-bench-").tempdir()?;
    let port = process::free_port()?;
    let upstream_folder = folder.path().join("upstream");
    std::fs::create_dir(&upstream_folder)?;
    let start = Start {
        program: std::env::current_exe()?,
        arguments: vec!["upstream".to_owned(), port.to_string()],
        environment: Vec::new(),
        folder: upstream_folder,
    };
    let mut upstream = Process::start(&start, own_core)?;
    upstream.wait(plan.to_start, |_| load::ask(process::local(port), 0, plan.to_start.time).is_ok())?;
    let yard = Yard::new(
        &wanted,
        &arguments.peers,
        folder.path(),
        arguments.hythe.clone(),
        port,
        held.max(1024) + 100,
        proxy_core,
    )?;
    let results = Bench::new(plan, yard, upstream, process::local(port), held, begun).run(&wanted)?;
    results.write(&file)?;
    eprintln!("bench: written to {} after {:.0} s", file.display(), begun.elapsed().as_secs_f64());
    if !selection.quick {
        page::write(&results, &arguments.docs)?;
    }
    Ok(())
}

/// Where a person ends us, what we started ends too.
fn end_with_us() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
            let terminated = async {
                match &mut terminate {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated => {}
            }
        });
        process::kill_all();
        std::process::exit(130);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_as_many_as_routes() {
        assert_eq!(names(1).collect::<Vec<_>>(), ["bench.localhost"]);
        assert_eq!(names(3).last().unwrap(), "other-1.localhost");
        assert_eq!(names(1000).count(), 1000);
    }
}
