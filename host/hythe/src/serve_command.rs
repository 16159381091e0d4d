//! `hythe serve`: the host, for operators.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serve::inherit::Inherited;

use crate::attend::{self, Signals, attend};
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
    let mut signals = Signals::take()?;
    let options = Options {
        config: arguments.host.config()?,
        data_dir: arguments.host.data_dir(),
        stop_agents: !arguments.keep_workloads,
        inherited: Arc::new(Inherited::from_environment()?),
    };
    let mut host = Host::start(options).await?;
    if let Some(token) = &host.new_admin_token {
        anstream::println!("admin token (shown once, kept in {}): {token}", host.admin_token_file.display());
    }
    let http = host.http_addresses.iter().map(|address| format!("http://{address}"));
    let https = host.https_addresses.iter().map(|address| format!("https://{address}"));
    let ingress = http.chain(https).collect::<Vec<_>>();
    anstream::println!("ingress {} · API http://{}/v1/docs", ingress.join(" "), host.api_address);
    host.own().await;
    let end = attend(&host, &mut signals, &arguments.host).await;
    attend::end(host, end, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}
