//! The matrix and the suites of others for ingress (tests/ingress): builds the programs that they run,
//! and hands over to their own runner, which makes their environments and bounds their time.
//!
//! Absent on purpose: what a suite does, and what its results mean. That stands with the suites.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::build::{on_host, program};
use crate::command::Command;
use crate::suites::Outcome;
use crate::tools;
use crate::workspace::{Workspace, root, target};

/// Examples of the crate `ingress`: ingress alone, and an origin made of hyper.
const EXAMPLES: [&str; 2] = ["stand", "origin"];

/// A row of what the runner leaves in `suites.json`.
#[derive(Debug, Deserialize)]
struct Row {
    suite: String,
    result: String,
    #[serde(rename = "said at last")]
    said: String,
}

/// Runs one suite. `filter` is passed on to it.
///
/// # Errors
/// Where Python is missing, the programs do not compile, or the suite fails.
pub fn run(name: &str, filter: &[String]) -> Result<Outcome> {
    let python = tools::python()?;
    let workspace = Workspace::load()?;
    on_host(Command::cargo("build"), &workspace).each("--example", EXAMPLES).run()?;
    let examples = program("examples");
    let work = target().join("ingress");
    std::fs::create_dir_all(&work).with_context(|| format!("can't make the folder {}", work.display()))?;
    let ran = Command::new(python)
        .arg(root().join("tests/ingress/run.py"))
        .arg("--stand")
        .arg(examples.join("stand"))
        .arg("--hyper")
        .arg(examples.join("origin"))
        .arg("--work")
        .arg(&work)
        .arg(name)
        .args(filter)
        .run();
    ran?;
    outcome(name, &std::fs::read_to_string(work.join("suites.json")).unwrap_or_default())
}

/// What the runner says of the suite, where it did not fail.
fn outcome(name: &str, results: &str) -> Result<Outcome> {
    let rows: Vec<Row> = serde_json::from_str(results)
        .with_context(|| format!("the results of {name} can't be read: {results:?}"))?;
    match rows.into_iter().find(|row| row.suite == name) {
        Some(row) if row.result == "skipped" => Ok(Outcome::Skipped(row.said)),
        Some(row) if row.result == "passed" => Ok(Outcome::Passed),
        _ => bail!("the runner left no result of {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_suite_says_why() {
        let results =
            r#"[{"suite": "redbot", "seconds": 1.0, "result": "skipped", "said at last": "no nginx"}]"#;
        assert_eq!(outcome("redbot", results).unwrap(), Outcome::Skipped("no nginx".to_owned()));
        assert!(outcome("ws", results).is_err());
    }
}
