//! `./x test`: every check and test as steps, in an order that tells of cheap faults first, and a
//! table of how long each took.
//!
//! A failed step does not keep the later ones from running, so that one run tells all; a failed build
//! does. The test runner's own output, its closing lines with it, is shown as it comes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::command::Command;
use crate::workspace::Workspace;
use crate::{browser, build, ingress_suites, layers, query_cache, tools};

/// Which steps, and what is passed on to the test runner.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Only these steps (and the build, where they need it)
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "without")]
    suites: Vec<Suite>,
    /// All steps but these
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Suite>,
    /// Passed on to the test runner or the suite: a part of the tests' names, or its own options
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The code is formatted
    Fmt,
    /// Crates depend downwards only
    Layers,
    /// Licences and doubles of dependencies, where cargo-deny is installed
    Deny,
    /// The programs and components compile
    Build,
    /// Clippy finds nothing
    Lint,
    /// .sqlx is what the queries and migrations make
    Sqlx,
    /// Unit and integration tests, on a real Postgres
    Unit,
    /// The real binaries, end to end
    E2e,
    /// A Vite project in Chromium, with hot module replacement, under every runtime
    Browser,
    /// Ingress: raw HTTP/1 and HTTP/2 requests, each canonical at six origins or refused
    Matrix,
    /// Ingress: what curl and Node's clients see, against going direct
    Clients,
    /// Ingress: grpcio, all kinds of calls, against going direct
    Grpc,
    /// Ingress: floods of HTTP/2 beside a healthy client (by name only)
    H2abuse,
    /// Ingress: Autobahn's WebSocket cases, against going direct (by name only)
    Ws,
    /// Ingress: REDbot's notes, against going direct (by name only)
    Redbot,
    /// Ingress: sslyze, Mozilla's intermediate configuration (by name only)
    Sslyze,
    /// Ingress: slowhttptest's three attacks beside a healthy client (by name only)
    Slowhttp,
}

impl Suite {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether the step takes minutes, or a program from afar, and so runs only where it is named.
    fn by_name_only(self) -> bool {
        matches!(self, Self::H2abuse | Self::Ws | Self::Redbot | Self::Sslyze | Self::Slowhttp)
    }

    /// Whether the step runs what `build` makes.
    fn needs_build(self) -> bool {
        matches!(self, Self::Unit | Self::E2e | Self::Browser)
    }

    fn run(self, selection: &Selection) -> Result<Outcome> {
        match self {
            Self::Fmt => format(true)?,
            Self::Layers => layers::run()?,
            Self::Deny => return deny(),
            Self::Build => build::everything()?,
            Self::Lint => lint()?,
            Self::Sqlx => query_cache::check()?,
            Self::Unit => return unit(&selection.filter),
            Self::E2e => return end_to_end(&selection.filter),
            Self::Browser => browser::run()?,
            Self::Matrix
            | Self::Clients
            | Self::Grpc
            | Self::H2abuse
            | Self::Ws
            | Self::Redbot
            | Self::Sslyze
            | Self::Slowhttp => return ingress_suites::run(&self.name(), &selection.filter),
        }
        Ok(Outcome::Passed)
    }
}

impl Selection {
    fn steps(&self) -> Vec<Suite> {
        let chosen = |suite: &Suite| match self.suites.as_slice() {
            [] => !suite.by_name_only() && !self.without.contains(suite),
            some => {
                some.contains(suite) || (*suite == Suite::Build && some.iter().any(|one| one.needs_build()))
            }
        };
        Suite::value_variants().iter().copied().filter(chosen).collect()
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// With the reason.
    Skipped(String),
    Failed(String),
}

/// Runs the steps.
///
/// # Errors
/// Where one failed; the table says which.
pub fn run(selection: &Selection) -> Result<()> {
    let steps = selection.steps();
    if steps.contains(&Suite::Browser) {
        // Said now rather than after half an hour.
        tools::browser_tools()?;
    }
    let mut report = Report::default();
    for suite in steps {
        if suite.needs_build() && report.failed(Suite::Build) {
            report.add(suite, Duration::ZERO, Outcome::Skipped("the build failed".to_owned()));
            continue;
        }
        eprintln!("\n── {} ──", suite.name());
        let begun = Instant::now();
        let outcome = suite.run(selection).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let Outcome::Failed(why) = &outcome {
            eprintln!("x: {}: {why}", suite.name());
        }
        report.add(suite, begun.elapsed(), outcome);
    }
    if let Err(error) = query_cache::stop_test_database() {
        eprintln!("x: the tests' database could not be stopped: {error:#}");
    }
    eprintln!("\n{}", report.table());
    report.verdict()
}

/// Formats, or checks the format.
///
/// # Errors
/// Where something is not formatted, or can't be.
pub fn format(check: bool) -> Result<()> {
    let command = Command::cargo("fmt").arg("--all");
    if check { command.arg("--check").run() } else { command.run() }
}

/// Clippy with warnings denied: the host's crates with their tests, then the components for their own
/// target.
///
/// # Errors
/// Where it finds something.
pub fn lint() -> Result<()> {
    let workspace = Workspace::load()?;
    build::on_host(Command::cargo("clippy"), &workspace)
        .arg("--all-targets")
        .args(["--", "-D", "warnings"])
        .run()?;
    Command::cargo("clippy")
        .args(["--target", "wasm32-wasip2", "--profile", "component"])
        .each("-p", workspace.all_components())
        .args(["--", "-D", "warnings"])
        .run()
}

/// What tells the end-to-end tests from the others: the host program's integration tests.
const END_TO_END: &str = "package(hythe) & kind(test)";

fn unit(filter: &[String]) -> Result<Outcome> {
    if tools::has_nextest() {
        nextest(&format!("not ({END_TO_END})"), filter)?;
    } else {
        // One run for these and the end-to-end tests: another selection of crates would build
        // dependencies a second time.
        eprintln!(
            "x: cargo-nextest is not installed (`cargo install --locked cargo-nextest`): using cargo test"
        );
        let workspace = Workspace::load()?;
        build::on_host(Command::cargo("test"), &workspace)
            .args(["--no-fail-fast", "--lib", "--bins", "--tests", "--"])
            .args(filter)
            .run()?;
    }
    Ok(Outcome::Passed)
}

fn end_to_end(filter: &[String]) -> Result<Outcome> {
    if !tools::has_nextest() {
        return Ok(Outcome::Skipped("ran with `unit`".to_owned()));
    }
    nextest(END_TO_END, filter)?;
    Ok(Outcome::Passed)
}

fn nextest(which: &str, filter: &[String]) -> Result<()> {
    let workspace = Workspace::load()?;
    let command = build::on_host(Command::cargo("nextest").arg("run"), &workspace);
    // A name that matches in one of the two runs only is no mistake.
    let none = if filter.is_empty() { "fail" } else { "pass" };
    command.args(["--no-fail-fast", "--no-tests", none, "-E", which]).args(filter).run()
}

fn deny() -> Result<Outcome> {
    if !tools::has_deny() {
        return Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()));
    }
    Command::cargo("deny").args(["check", "bans", "licenses", "sources"]).run()?;
    Ok(Outcome::Passed)
}

/// What ran, in order.
#[derive(Debug, Default)]
struct Report(Vec<(Suite, Duration, Outcome)>);

impl Report {
    fn add(&mut self, suite: Suite, took: Duration, outcome: Outcome) {
        self.0.push((suite, took, outcome));
    }

    fn failed(&self, suite: Suite) -> bool {
        self.0.iter().any(|(ran, _, outcome)| *ran == suite && matches!(outcome, Outcome::Failed(_)))
    }

    fn table(&self) -> String {
        let mut table = format!("{:<10} {:>9}  result", "step", "seconds");
        for (suite, took, outcome) in &self.0 {
            let outcome = match outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
                Outcome::Failed(_) => "FAILED".to_owned(),
            };
            table.push_str(&format!("\n{:<10} {:>9.1}  {outcome}", suite.name(), took.as_secs_f64()));
        }
        let all: Duration = self.0.iter().map(|(_, took, _)| *took).sum();
        table.push_str(&format!("\n{:<10} {:>9.1}", "all", all.as_secs_f64()));
        table
    }

    fn verdict(&self) -> Result<()> {
        let failed = self.0.iter().filter(|(.., outcome)| matches!(outcome, Outcome::Failed(_)));
        let failed: Vec<_> = failed.map(|(suite, ..)| suite.name()).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(suites: &[Suite], without: &[Suite]) -> Vec<Suite> {
        Selection { suites: suites.to_vec(), without: without.to_vec(), filter: Vec::new() }.steps()
    }

    #[test]
    fn the_build_comes_with_what_needs_it() {
        assert_eq!(steps(&[Suite::E2e], &[]), [Suite::Build, Suite::E2e]);
        assert_eq!(steps(&[Suite::Fmt], &[]), [Suite::Fmt]);
        let by_default: Vec<_> =
            Suite::value_variants().iter().copied().filter(|suite| !suite.by_name_only()).collect();
        assert_eq!(steps(&[], &[]), by_default);
        assert_eq!(steps(&[Suite::Ws, Suite::Matrix], &[]), [Suite::Matrix, Suite::Ws]);
        assert!(!steps(&[], &[Suite::Browser]).contains(&Suite::Browser));
    }

    #[test]
    fn one_failure_fails_all_and_is_named() {
        let mut report = Report::default();
        report.add(Suite::Fmt, Duration::from_millis(1250), Outcome::Passed);
        report.add(Suite::Deny, Duration::ZERO, Outcome::Skipped("not here".to_owned()));
        assert!(report.verdict().is_ok());
        report.add(Suite::Build, Duration::from_secs(61), Outcome::Failed("it broke".to_owned()));
        assert!(report.failed(Suite::Build));
        assert_eq!(report.verdict().unwrap_err().to_string(), "failed: build");
        assert_eq!(
            report.table(),
            "step         seconds  result\n\
             fmt              1.2  passed\n\
             deny             0.0  skipped: not here\n\
             build           61.0  FAILED\n\
             all             62.2"
        );
    }
}
