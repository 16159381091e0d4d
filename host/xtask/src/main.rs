//! `xtask`: what `./x` runs. Builds, checks and tests the repository.
//!
//! Few and small dependencies, since a clean clone compiles this before anything else; what needs a
//! database is a second binary (`xtask-database`), built with the tests. Nothing here knows how the
//! host works inside: it runs cargo, the programs it built, and tools that it finds on the machine.
//!
//! Absent on purpose: installing toolchains (`./x` does, before there is a Rust program to do it).

#![expect(clippy::print_stderr, reason = "a command line program")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod browser;
mod build;
mod command;
mod fuzz;
mod ingress_suites;
mod layers;
mod measure;
mod query_cache;
mod runtime_names;
mod suites;
mod tools;
mod trial_host;
mod workspace;

#[derive(Debug, Parser)]
#[command(
    name = "x",
    bin_name = "./x",
    about = "Builds, runs and checks Hythe",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds, then runs the host with its database, two local machines and a sample project
    Up {
        /// Passed on to `hythe up`; `--check` asks each address once, stops everything and says whether
        /// all of it worked
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Builds the programs, the components (target/adapters) and the sample project (target/sample)
    Build {
        /// Only the components
        #[arg(long)]
        components: bool,
    },
    /// Runs every check and test, and says how long each took
    Test(suites::Selection),
    /// Formats the code, or checks that it is formatted
    Fmt {
        /// Change nothing; fail where something is not formatted
        #[arg(long)]
        check: bool,
    },
    /// Runs clippy with warnings denied, on the host's crates and on the components
    Lint,
    /// Fuzzes what reads hostile bytes (libFuzzer; needs a C++ compiler)
    Fuzz {
        /// One target of host/ingress/fuzz; all where none is named
        target: Option<String>,
        /// Executions of each
        #[arg(long, default_value_t = 10_000_000)]
        runs: u64,
    },
    /// Checks that crates depend downwards only, and that the host names no runtime
    Layers,
    /// Measures what Hythe costs, and writes bench/results
    #[command(subcommand)]
    Bench(measure::Measurement),
    /// Renews .sqlx, which the queries are checked against, from the migrations
    Sqlx {
        /// Change nothing; fail where .sqlx is not what the queries and migrations make
        #[arg(long)]
        check: bool,
    },
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Up { arguments } => build::up(arguments),
        Task::Build { components: true } => build::components(),
        Task::Build { components: false } => build::everything(),
        Task::Test(selection) => suites::run(&selection),
        Task::Fmt { check } => suites::format(check),
        Task::Lint => suites::lint(),
        Task::Fuzz { target, runs } => fuzz::run(target.as_deref(), runs),
        Task::Layers => layers::run(),
        Task::Bench(measurement) => measure::run(measurement),
        Task::Sqlx { check: false } => query_cache::renew(),
        Task::Sqlx { check: true } => query_cache::check(),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}
