//! The browser test: a project made by Vite's React template, unchanged, deployed under each runtime
//! that ships and edited inside the deployment, in headless Chromium (see guests/vite-hmr).
//!
//! Runs the real programs through the command line, as a person would.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::Command;
use crate::tools::{self, BrowserTools};
use crate::trial_host::TrialHost;
use crate::workspace::{Workspace, root, target};

/// The project, deployed under each runtime in turn.
const PROJECT: &str = "board";

/// Makes the project, deploys it under each runtime, and looks at it in the browser.
///
/// # Errors
/// Where a tool is missing, the host does not come up, or the page is not as it should be.
pub fn run() -> Result<()> {
    let tools = tools::browser_tools()?;
    let harness = root().join("guests/vite-hmr");
    Command::new(&tools.npm).folder(&harness).args(["ci", "--no-audit", "--no-fund"]).output()?;
    let folder = target().join("browser");
    let project = folder.join(PROJECT);
    Command::new(&tools.node).arg(harness.join("make-project.mjs")).arg(&project).run()?;

    let workspace = Workspace::load()?;
    let host = TrialHost::start(&folder)?;
    for runtime in workspace.components("adapters") {
        look(&tools, &harness, &host, &project, runtime).map_err(|error| {
            error.context(format!("under the runtime {runtime} (the host's log: {})", host.log().display()))
        })?;
        eprintln!("x: browser: the page and its hot update work under {runtime}");
    }
    host.stop()
}

/// What `hythe deploy --json` ends with.
#[derive(Debug, Deserialize)]
struct Deployed {
    url: String,
}

fn look(tools: &BrowserTools, harness: &Path, host: &TrialHost, project: &Path, runtime: &str) -> Result<()> {
    let deploy = ["deploy", "--json", "--project", PROJECT, "--runtime", runtime];
    let answer = host.hythe(deploy).arg(project).output()?;
    let last = answer.lines().last().unwrap_or_default();
    let deployed: Deployed = serde_json::from_str(last)
        .with_context(|| format!("`hythe deploy --json` ended with what is no answer of it: {last:?}"))?;
    let inside = serde_json::to_string(&host.words(["exec", PROJECT, "--"]))?;
    Command::new(&tools.node)
        .arg(harness.join("hmr.mjs"))
        .args(["--url", &deployed.url, "--exec", &inside])
        .arg("--screenshot")
        .arg(target().join("browser").join(runtime).with_extension("png"))
        .env("CHROMIUM", &tools.chromium)
        .run()
}
