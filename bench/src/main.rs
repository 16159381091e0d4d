//! `./x bench`: what Hythe costs, measured on real programs. Prints what it does, writes
//! `bench/results/<name>.json`.
//!
//! Figures are medians; those that are compared come from the same run, taken in turn. The machine's own speed is in
//! all of them: read ratios, not single numbers.

#![expect(clippy::print_stderr, reason = "a command line program")]

mod calls;
mod first;
mod load;
mod running;
mod statistics;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Folder with `hythe`, `hythe-agent` and `harbour`.
    #[arg(long)]
    programs: PathBuf,
    /// Folder with the components.
    #[arg(long)]
    adapters: PathBuf,
    /// The sample project's folder.
    #[arg(long)]
    sample: PathBuf,
    /// Where results are written.
    #[arg(long)]
    results: PathBuf,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The first whole path: coming up, memory, ingress, starts, calls of adapters
    First {
        /// Rounds of everything that is repeated
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let places = running::Places {
        programs: arguments.programs,
        adapters: arguments.adapters,
        sample: arguments.sample,
        results: arguments.results,
    };
    match arguments.task {
        Task::First { rounds } => first::run(&places, rounds).await,
    }
}
