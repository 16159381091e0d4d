//! User-space instructions of one request, counted by callgrind: exact, where seconds are noise.
//!
//! The program runs tens of times slower under it; only counts are read. Counters of the processor (`perf`) would be
//! quicker and are not to be had in most virtual machines, so they are not used at all.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::load::{self, Load, Pace, What};
use super::process::{Allowed, Process};
use super::proxies::{Kind, Yard};
use super::setup;

/// Instructions for one request of a proxy (one that is one process) with so many routes: `few` of them asked, then all, each as likely.
///
/// # Errors
/// Where there is no valgrind, or the program does not come up under it.
pub fn measure(
    yard: &Yard,
    kind: Kind,
    routes: usize,
    few: usize,
    allowed: Allowed,
    core: usize,
) -> anyhow::Result<[f64; 2]> {
    let valgrind = setup::valgrind().map_err(|reason| anyhow::anyhow!("{reason}"))?;
    // A table of a million is built much sooner while nothing is counted.
    let arguments =
        ["--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=counted", "--dump-line=no"];
    let (start, address) = yard.under(&valgrind, kind, arguments.map(str::to_owned).to_vec(), routes)?;
    let mut process = Process::start(&start, core)?;
    process.wait(allowed, |_| load::ask(address, routes - 1, Duration::from_secs(5)).is_ok())?;
    let pid = process.pid().to_string();
    let control = |flag: &str| -> anyhow::Result<()> {
        let output = Command::new("callgrind_control").args([flag, &pid]).output();
        let output = output.context("callgrind_control can't be run")?;
        ensure!(
            output.status.success(),
            "callgrind_control {flag} fails: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    };
    control("--instr=on")?;
    let awake = |_: &Process| load::ask(address, 0, Duration::from_secs(5)).is_ok();
    process.wait(allowed, awake)?;
    // First the pool is filled and everything touched once; then counting begins anew.
    let second = Duration::from_secs(1);
    let load = Load {
        address,
        what: What::Small,
        // One: two requests for the same route at once would open a second connection to its upstream.
        connections: 1,
        routes,
        asked: few,
        pace: Pace::Closed,
        warm: second,
        length: 2 * second,
    };
    load::run(&load, || Ok(()))?;
    // What it does by itself (timers) goes on at its own pace while requests are tens of times slower: it is counted
    // apart and taken off.
    control("--zero")?;
    let begun = Instant::now();
    std::thread::sleep(2 * second);
    control("--dump")?;
    let by_itself = counts(&start.folder).unwrap_or_default() as f64 / begun.elapsed().as_secs_f64();
    let mut each = [0.0; 2];
    for (each, asked) in each.iter_mut().zip([few, routes]) {
        // Where it thinks that it was overloaded meanwhile, it needs a moment.
        process.wait(allowed, awake)?;
        control("--zero")?;
        let begun = Instant::now();
        // All requests count here, those of the warm-up too.
        let counted = load::run(&Load { asked, warm: Duration::ZERO, ..load }, || Ok(()))?;
        control("--dump")?;
        let own = by_itself * begun.elapsed().as_secs_f64();
        *each = (counts(&start.folder)? as f64 - own) / counted.completed as f64;
    }
    Ok(each)
}

/// What the dumps in the folder hold in all; they are gone then.
fn counts(folder: &Path) -> anyhow::Result<u64> {
    let mut instructions = 0;
    for entry in std::fs::read_dir(folder)?.flatten() {
        // The file without a number is the program's whole life, written when it ends.
        if entry.file_name().to_string_lossy().starts_with("counted.") {
            let text = std::fs::read_to_string(entry.path())?;
            let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
            instructions += total.and_then(|total| total.trim().parse::<u64>().ok()).unwrap_or_default();
            std::fs::remove_file(entry.path())?;
        }
    }
    ensure!(instructions > 0, "callgrind wrote no counts");
    Ok(instructions)
}
