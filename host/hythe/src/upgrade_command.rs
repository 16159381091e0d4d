//! `hythe upgrade`: has the running host replaced by the program that is installed now.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, Signal};

use crate::data_dir::DataDir;
use crate::successor;

/// Between two looks for the outcome.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `hythe upgrade`
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The data directory of the host on this machine.
    #[arg(long, env = "HYTHE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How long to wait for the outcome, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Asks the host of the data directory, and tells how it went.
///
/// # Errors
/// Where no host runs there, or it goes on as it was: why.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let data_dir = arguments.data_dir.clone().unwrap_or_else(DataDir::default_path);
    let Some(pid) = DataDir::holder(&data_dir)? else {
        bail!("no host runs with the data directory {}: name its own with --data-dir", data_dir.display());
    };
    successor::forget_outcome(&data_dir);
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("the host's pid can't be read")?;
    rustix::process::kill_process(process, Signal::USR2)
        .with_context(|| format!("the host (pid {pid}) can't be told: run this as its user"))?;
    let outcome = async {
        loop {
            if let Some(outcome) = successor::read_outcome(&data_dir, pid) {
                return outcome;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let Ok(outcome) = tokio::time::timeout(Duration::from_secs(arguments.timeout), outcome).await else {
        bail!("the host (pid {pid}) has not said within {} s how it went: see its log", arguments.timeout);
    };
    match (outcome.to, outcome.error) {
        (Some(new), _) => {
            anstream::println!("process {new} serves; process {pid} ends with its last open request");
            Ok(ExitCode::SUCCESS)
        }
        (None, error) => bail!("the host goes on as it was (pid {pid}): {}", error.unwrap_or_default()),
    }
}
