//! `hythe up`: the whole thing on one machine, for a first look and for development.

mod check;
mod sample;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serve::inherit::Inherited;

use crate::attend::{self, End, Signals, attend};
use crate::host::{Host, Options};
use crate::local_agent::LocalAgent;
use crate::machines;
use crate::serve_command::HostArguments;

/// `hythe up`
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    host: HostArguments,
    /// The sample project to deploy under each adapter.
    #[arg(long, value_name = "DIR")]
    sample: Option<PathBuf>,
    /// Deploy no sample project.
    #[arg(long)]
    no_sample: bool,
    /// How many machines to run on this computer.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    machines: usize,
    /// Ask each address once (page, JSON, SSE, WebSocket), stop everything, and say by the exit code
    /// whether all of it worked.
    #[arg(long)]
    check: bool,
}

/// Runs until it is told to stop; with `--check` until all has been asked once.
///
/// # Errors
/// Where something does not start.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.host.log("warn")?;
    crate::faults::register();
    let mut signals = Signals::take()?;
    let started = std::time::Instant::now();
    let options = Options {
        config: arguments.host.config()?,
        data_dir: arguments.host.data_dir(),
        stop_agents: true,
        inherited: Arc::new(Inherited::from_environment()?),
    };
    let mut host = Host::start(options).await?;
    // To their end, so that each that has started is known and is stopped below.
    let (local_machines, failed) = machines::start(&host, arguments.machines).await;
    let failed = match failed {
        // All is the other process's still: nothing here may end it.
        Some(error) if host.is_taking_over() => return Err(error),
        failed => failed,
    };
    if failed.is_none() {
        host.own().await;
    }
    let (end, outcome) = match failed {
        Some(error) => (End::Stop, Err(error)),
        None => tokio::select! {
            end = attend(&host, &mut signals, &arguments.host) => (end, Ok(ExitCode::SUCCESS)),
            outcome = work(&host, &arguments, started) => (End::Stop, outcome),
        },
    };
    if end == End::HandedOver {
        local_machines.into_iter().for_each(LocalAgent::leave);
        attend::end(host, end, &mut signals).await;
        return outcome;
    }
    anstream::eprintln!("stopping …");
    // The listeners first; then the machines, whose tunnels they used.
    let ((), _) = tokio::join!(
        host.stop(),
        futures_util::future::join_all(local_machines.into_iter().map(LocalAgent::stop))
    );
    outcome
}

async fn work(host: &Host, arguments: &Arguments, started: std::time::Instant) -> anyhow::Result<ExitCode> {
    let deployed = match &arguments.sample {
        Some(folder) if !arguments.no_sample => sample::deploy(host, folder).await?,
        _ => Vec::new(),
    };
    tell(host, &deployed, started.elapsed());
    if !arguments.check {
        return std::future::pending().await;
    }
    let mut all_good = !deployed.is_empty();
    for sample in &deployed {
        for (what, result) in check::ask(host, sample).await {
            match result {
                Ok(()) => anstream::println!("ok      {} {what}", sample.url),
                Err(error) => {
                    all_good = false;
                    anstream::println!("FAILED  {} {what}: {error:#}", sample.url);
                }
            }
        }
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(host: &Host, deployed: &[sample::Sample], took: Duration) {
    anstream::println!("Hythe is ready ({:.1} s).\n", took.as_secs_f64());
    for sample in deployed {
        anstream::println!("  {:<44} the sample project under `{}`", sample.url, sample.runtime_type);
    }
    for (address, sample) in host
        .https_addresses
        .iter()
        .take(1)
        .flat_map(|address| deployed.iter().map(move |sample| (address, sample)))
    {
        let url = format!("https://{}:{}/", sample.host_name, address.port());
        anstream::println!("  {url:<44} the same by TLS (`hythe trust` tells how to trust it)");
    }
    anstream::println!("  {:<44} the control API", format!("http://{}/v1/docs", host.api_address));
    anstream::println!("\nData: {}", host.data_dir.path().display());
    match &host.new_admin_token {
        Some(token) => anstream::println!(
            "Admin token (shown once, kept in {}): {token}",
            host.admin_token_file.display()
        ),
        None => anstream::println!("Admin token: in {}", host.admin_token_file.display()),
    }
    anstream::println!(
        "\nTry:  export HYTHE_API=http://{} HYTHE_DATA_DIR={}\n      hythe ps\nStop everything with Ctrl-C.",
        host.api_address,
        host.data_dir.path().display()
    );
}
