//! Coverage-guided fuzzing of what reads hostile bytes, by libFuzzer.
//!
//! The targets are in host/ingress/fuzz, what they promise in host/ingress/src/fuzz.rs. Built with stable
//! Rust: the coverage is LLVM's own, asked for by flags; there is no sanitizer, since the crate has no
//! unsafe code to watch.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::command::Command;
use crate::workspace;

/// Of `host/ingress/fuzz/src/bin`.
const TARGETS: [&str; 5] = ["host", "target", "request_headers", "response_headers", "routes"];

/// What libFuzzer needs to see which way was taken.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table";

/// Runs one target, or all, `executions` times each. New inputs that go new ways are kept beside the build,
/// not in the repository.
pub fn run(target: Option<&str>, executions: u64) -> Result<()> {
    let targets: Vec<&str> = match target {
        None => TARGETS.to_vec(),
        Some(name) => match TARGETS.iter().find(|known| **known == name) {
            Some(known) => vec![known],
            None => bail!("there is no fuzz target {name:?}: choose one of {}", TARGETS.join(", ")),
        },
    };
    let folder = workspace::root().join("host/ingress/fuzz");
    let built = workspace::target().join("fuzz");
    let triple = "x86_64-unknown-linux-gnu";
    Command::cargo("build")
        .folder(&folder)
        .args(["--release", "--bins", "--target", triple, "--target-dir"])
        .arg(&built)
        .env("RUSTFLAGS", COVERAGE)
        .run()?;
    for name in targets {
        let grown = built.join("corpus").join(name);
        let artifacts = built.join("artifacts").join(name);
        for folder in [&grown, &artifacts] {
            std::fs::create_dir_all(folder)?;
        }
        let program: PathBuf = built.join(triple).join("release").join(name);
        Command::new(program)
            .arg(&grown)
            .arg(folder.join("corpus").join(name))
            .arg(format!("-runs={executions}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-max_len=512", "-print_final_stats=1", "-verbosity=1", "-timeout=10"])
            .run()?;
    }
    Ok(())
}
