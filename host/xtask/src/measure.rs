//! `./x bench`: builds what is measured, then runs the program `bench` on it.

use anyhow::Result;

use crate::build;
use crate::command::Command;
use crate::workspace::{Workspace, root, target};

/// Crates with programs that are measured, and the one that measures.
const PROGRAMS: [&str; 4] = ["hythe", "hythe-agent", "harbour", "bench"];

/// Measures `name`, with the programs as `./x up` runs them or as one ships them.
///
/// # Errors
/// Where something does not build or work.
pub fn run(name: &str, release: bool) -> Result<()> {
    build::everything()?;
    let programs = target().join(if release { "release" } else { "debug" });
    let build = Command::cargo("build").args(if release { &["--release"][..] } else { &[] });
    build::on_host(build, &Workspace::load()?).each("--bin", PROGRAMS).run()?;
    Command::new(programs.join("bench"))
        .arg("--programs")
        .arg(&programs)
        .arg("--adapters")
        .arg(build::adapters())
        .arg("--sample")
        .arg(build::sample())
        .arg("--results")
        .arg(root().join("bench/results"))
        .arg(name)
        .run()
}
