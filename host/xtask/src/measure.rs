//! `./x bench`: builds what is measured, then runs the program `bench` on it.

use anyhow::Result;
use clap::Subcommand;

use crate::build;
use crate::command::Command;
use crate::workspace::{Workspace, root, target};

/// Crates with programs that are measured, and the one that measures.
const PROGRAMS: [&str; 4] = ["hythe", "hythe-agent", "harbour", "bench"];

/// The crate whose example is a stand with adapters that decide (T1).
const ROUTING: &str = "routing";
/// The adapter that decides there.
const DECIDES: &str = "canary-adapter";

/// Makes what is built beside `bench` run under valgrind.
const PROFILED: &str = "bench/profiled";

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Measurement {
    /// The first whole path: coming up, memory, ingress, starts, calls of adapters
    First {
        /// Build for release first (takes long), as one ships it
        #[arg(long)]
        release: bool,
    },
    /// Ingress beside other proxies; builds for release, and gets the peers
    #[command(disable_help_flag = true)]
    Ingress {
        /// Passed on; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
}

/// Measures.
///
/// # Errors
/// Where something does not build or work.
pub fn run(measurement: Measurement) -> Result<()> {
    match measurement {
        Measurement::First { release } => first(release),
        Measurement::Ingress { arguments } => ingress(arguments),
    }
}

/// The programs as `./x up` runs them, or as one ships them.
fn first(release: bool) -> Result<()> {
    build::everything()?;
    let programs = target().join(if release { "release" } else { "debug" });
    let build = Command::cargo("build").args(if release { &["--release"][..] } else { &[] });
    build::on_host(build, &Workspace::load()?).each("--bin", PROGRAMS).run()?;
    Command::new(programs.join("bench"))
        .arg("first")
        .arg("--programs")
        .arg(&programs)
        .arg("--adapters")
        .arg(build::adapters())
        .arg("--sample")
        .arg(build::sample())
        .arg("--results")
        .arg(root().join("bench/results"))
        .run()
}

/// Ingress alone, in its stand: neither the database nor, but for T1, the compiler of components is built for it.
fn ingress(arguments: Vec<String>) -> Result<()> {
    Command::cargo("build")
        .args(["--release", "--no-default-features", "--features", PROFILED])
        .args(["-p", "bench", "-p", "ingress", "--bin", "bench", "--example", "stand"])
        .run()?;
    let release = target().join("release");
    let mut bench = Command::new(release.join("bench"))
        .arg("ingress")
        .arg("--stand")
        .arg(release.join("examples/stand"))
        .arg("--peers")
        .arg(target().join("bench-peers"))
        .arg("--results")
        .arg(root().join("bench/results"))
        .arg("--docs")
        .arg(root().join("docs"));
    if let Some(example) = stand_with_adapters().filter(|_| wants_adapters(&arguments)) {
        Command::cargo("build")
            .args(["--release", "--no-default-features", "--features", PROFILED])
            .args(["-p", "bench", "-p", ROUTING, "--example", &example])
            .run()?;
        build::components()?;
        bench = bench
            .arg("--stand-t1")
            .arg(release.join("examples").join(example))
            .arg("--adapter")
            .arg(build::adapters().join(format!("{DECIDES}.wasm")));
    }
    bench.args(arguments).run()
}

/// The example of [`ROUTING`] that is a stand.
fn stand_with_adapters() -> Option<String> {
    let examples = std::fs::read_dir(root().join("host").join(ROUTING).join("examples")).ok()?;
    let mut names = examples.flatten().filter_map(|entry| {
        let path = entry.path();
        let name = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == "rs" && name.contains("stand")).then_some(name)
    });
    names.next()
}

/// Whether T1 is to be measured at all: building it takes long.
fn wants_adapters(arguments: &[String]) -> bool {
    let only = arguments.iter().any(|argument| argument.starts_with("--only"));
    let page = arguments.iter().any(|argument| argument == "--page");
    !page && (!only || arguments.iter().any(|argument| argument.contains("hythe-t1")))
}

#[cfg(test)]
mod tests {
    use super::wants_adapters;

    #[test]
    fn adapters_are_built_where_they_are_measured() {
        let wants =
            |line: &str| wants_adapters(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(wants(""));
        assert!(wants("--quick --only nginx,hythe-t1"));
        assert!(!wants("--only nginx,hythe-t0"));
        assert!(!wants("--page"));
    }
}
