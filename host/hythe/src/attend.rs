//! What a running host is told by signals, and what it does then.
//!
//! | signal | |
//! | --- | --- |
//! | SIGINT, SIGTERM | stop all |
//! | SIGUSR2 | another process takes over: the program that lies where this one was started from |
//! | SIGHUP | take the configuration as it stands now |

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::host::Host;
use crate::serve_command::HostArguments;
use crate::successor::{self, Program};

/// The signals. Taken before anything starts, so that none is missed and none ends the process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

/// How a host's time ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All is to be stopped.
    Stop,
    /// Another process has all of it.
    HandedOver,
}

enum Wish {
    Stop,
    Upgrade,
    Reload,
}

impl Signals {
    /// # Errors
    /// Where signals can't be taken.
    pub fn take() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Resolves at Ctrl-C or SIGTERM.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn wish(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.upgrade.recv() => Wish::Upgrade,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

/// Does what signals say until the host's time ends.
pub async fn attend(host: &Host, signals: &mut Signals, arguments: &HostArguments) -> End {
    loop {
        let program = match signals.wish().await {
            Wish::Stop => return End::Stop,
            Wish::Upgrade => Program::Installed,
            Wish::Reload => match reload(host, arguments) {
                Ok(Reload::Done) => continue,
                // What can't be changed in a running process is taken by another.
                Ok(Reload::NeedsAnother) => Program::Same,
                Err(error) => {
                    tracing::error!("the configuration stays as it was: {error:#}");
                    continue;
                }
            },
        };
        let result = tokio::select! {
            result = successor::start(host, program) => result,
            () = signals.stop() => return End::Stop,
        };
        successor::write_outcome(&host.data_dir, &result);
        match result {
            Ok(pid) => {
                tracing::info!(pid, "another process has taken over");
                return End::HandedOver;
            }
            Err(error) => tracing::error!("this process goes on: {error:#}"),
        }
    }
}

enum Reload {
    Done,
    NeedsAnother,
}

/// Takes new certificates; says whether more has changed.
fn reload(host: &Host, arguments: &HostArguments) -> anyhow::Result<Reload> {
    let config = arguments.config()?;
    let unchanged = Config { tls: host.config().tls.clone(), ..config.clone() } == *host.config();
    if !unchanged {
        return Ok(Reload::NeedsAnother);
    }
    if let Some(certificates) = host.certificates() {
        certificates.reload(&config, &host.data_dir)?;
    }
    tracing::info!("the configuration was read again");
    Ok(Reload::Done)
}

/// Ends this process's part of the host; a second signal ends it at once.
pub async fn end(host: Host, end: End, signals: &mut Signals) {
    match end {
        End::Stop => host.stop().await,
        End::HandedOver => tokio::select! {
            () = host.leave() => {}
            () = signals.stop() => tracing::warn!("open requests were cut: told to end"),
        },
    }
}
