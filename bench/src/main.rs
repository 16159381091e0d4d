//! `./x bench`: what Hythe costs, measured on real programs. Prints what it does, writes
//! `bench/results/<name>.json`.
//!
//! Figures are medians; those that are compared come from the same run, taken in turn. The machine's own speed is in
//! all of them: read ratios, not single numbers.

#![expect(clippy::print_stderr, reason = "a command line program")]

#[cfg(feature = "first")]
mod calls;
#[cfg(feature = "first")]
mod first;
mod ingress;
#[cfg(feature = "first")]
mod load;
#[cfg(feature = "first")]
mod running;
mod statistics;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The first whole path: coming up, memory, ingress, starts, calls of adapters
    #[cfg(feature = "first")]
    First(First),
    /// Ingress beside other proxies
    Ingress(ingress::Arguments),
    #[command(flatten)]
    Program(ingress::Program),
}

#[cfg(feature = "first")]
#[derive(Debug, clap::Args)]
struct First {
    /// Folder with `hythe`, `hythe-agent` and `harbour`.
    #[arg(long)]
    programs: std::path::PathBuf,
    /// Folder with the components.
    #[arg(long)]
    adapters: std::path::PathBuf,
    /// The sample project's folder.
    #[arg(long)]
    sample: std::path::PathBuf,
    /// Where results are written.
    #[arg(long)]
    results: std::path::PathBuf,
    /// Rounds of everything that is repeated
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[cfg(feature = "first")]
impl First {
    fn run(self) -> anyhow::Result<()> {
        let places = running::Places {
            programs: self.programs,
            adapters: self.adapters,
            sample: self.sample,
            results: self.results,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(first::run(&places, self.rounds))
    }
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        #[cfg(feature = "first")]
        Task::First(first) => first.run(),
        Task::Ingress(arguments) => ingress::run(&arguments),
        Task::Program(program) => program.run(),
    }
}
