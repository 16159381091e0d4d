//! `hythe serve`: the host, for operators.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::host::{Host, Options};

/// What both `serve` and `up` take.
#[derive(Debug, Clone, Args)]
pub struct HostArguments {
    /// The host's configuration (TOML). Without it: the defaults.
    #[arg(long, env = "HYTHE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for all that the host keeps. Default: /var/lib/hythe for root, else
    /// ~/.local/share/hythe.
    #[arg(long, env = "HYTHE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How to write the log to stderr.
    #[arg(long, env = "HYTHE_LOG_FORMAT", default_value = "human", value_parser = ["human", "json"])]
    pub log_format: String,
}

/// `hythe serve`
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    host: HostArguments,
    /// Leave what runs under the daemons beside this host running when it stops; the next start takes
    /// it over.
    #[arg(long)]
    keep_workloads: bool,
}

impl HostArguments {
    /// The data directory that was named, or the default one.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(DataDir::default_path)
    }

    /// The configuration, whole and checked.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn config(&self) -> anyhow::Result<Config> {
        Config::load(self.config.as_deref())
    }

    /// Starts the log. `RUST_LOG` comes before `filter`.
    ///
    /// # Errors
    /// Where `RUST_LOG` can't be read.
    pub fn log(&self, filter: &str) -> anyhow::Result<()> {
        let format =
            if self.log_format == "json" { telemetry::LogFormat::Json } else { telemetry::LogFormat::Human };
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
        telemetry::init(format, &filter).context("RUST_LOG")
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// Where the host can't start.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.host.log("info")?;
    crate::faults::register();
    let stopping = stop_signal()?;
    let options = Options {
        config: arguments.host.config()?,
        data_dir: arguments.host.data_dir(),
        stop_agents: !arguments.keep_workloads,
    };
    let host = Host::start(options).await?;
    if let Some(token) = &host.new_admin_token {
        anstream::println!("admin token (shown once, kept in {}): {token}", host.admin_token_file.display());
    }
    let ingress =
        host.ingress_addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>();
    anstream::println!("ingress {} · API http://{}/v1/docs", ingress.join(" "), host.api_address);
    stopping.await;
    host.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Resolves at Ctrl-C or SIGTERM. Taken before anything starts, so that none is missed.
///
/// # Errors
/// Where signals can't be taken.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
