//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::daemon::{Config, Daemon, OnExit};
use crate::join::{Join, join};
use crate::users::WorkloadUser;
use crate::{faults, shim};

/// The daemon on a machine: runs workloads for a Hythe host.
#[derive(Debug, Parser)]
#[command(name = "hythe-agent", version)]
struct Cli {
    /// How to log to standard error.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT.
    ///
    /// Workloads go on while no daemon is there. Under systemd that needs `KillMode=process`.
    Run {
        /// Folder of all that it keeps; workloads' files too.
        #[arg(long, value_name = "DIR", env = "HYTHE_AGENT_DATA_DIR")]
        data_dir: PathBuf,
        /// Where to listen; port 0 takes any free one, which agent.json in the data folder then says.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8911")]
        listen: SocketAddr,
        /// What becomes of the workloads when the daemon ends.
        #[arg(long, value_enum, default_value_t)]
        on_exit: OnExit,
        /// User of the workloads: `auto` (one of its own each, where the daemon is root), `none` (the
        /// daemon's: they are trusted), or a name.
        #[arg(long, value_name = "USER", default_value = "auto")]
        workload_user: WorkloadUser,
    },
    /// Join a host with a one-time token (`hythe machines register` makes one).
    Join(Join),
    /// Print the SHA-256 of the daemon's certificate, which is made where it is missing.
    Certificate {
        #[arg(long, value_name = "DIR", env = "HYTHE_AGENT_DATA_DIR")]
        data_dir: PathBuf,
    },
    /// Hold one run; the daemon starts it.
    #[command(name = shim::SUBCOMMAND, hide = true)]
    Shim { folder: PathBuf },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut anstream::stderr(), format_args!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // First, and before any thread: a shim is small.
    if let Command::Shim { folder } = &cli.command {
        return shim::main(folder);
    }
    start_logging(cli.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Command::Run { data_dir, listen, on_exit, workload_user } => {
            faults::arm()?;
            // Not its name: the program may be replaced while it runs, and the daemon's and the shim's
            // notes must be of one version.
            let program = PathBuf::from("/proc/self/exe");
            runtime.block_on(serve(Config { data_dir, listen, on_exit, workload_user, program }))
        }
        Command::Join(options) => {
            let machine = runtime.block_on(join(&options))?;
            print(&format!(
                "joined as {machine}; now: hythe-agent run --data-dir {}",
                options.data_dir.display()
            ))
        }
        Command::Certificate { data_dir } => print(&agent_client::prepare_certificate(&data_dir)?),
        Command::Shim { .. } => Ok(()),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything starts: a signal from now on ends the daemon in order.
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT")?;
    let daemon = Daemon::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    daemon.end().await;
    Ok(())
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("HYTHE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(writeln!(anstream::stdout(), "{line}")?)
}
