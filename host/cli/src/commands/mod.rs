//! What each command does, a file each.

mod adapters;
mod deploy;
mod domains;
mod events;
mod exec;
mod lifecycle;
mod logs;
mod machines;
mod open;
mod projects;
mod ps;
mod upload;
mod watch;

use std::path::PathBuf;

use api_types::Deployment;

use crate::args::{Command, TargetArgs};
use crate::client::Client;
use crate::failure::{ExitStatus, Failure};
use crate::output::Output;
use crate::target::{Prefer, Target};

/// What every command works with.
pub struct Context {
    pub client: Client,
    pub output: Output,
    /// Where `./hythe.toml` is looked for.
    pub folder: PathBuf,
}

impl Context {
    async fn deployment(&self, target: &TargetArgs, prefer: Prefer) -> Result<Deployment, Failure> {
        let target = Target::parse(target.target.as_deref(), &self.folder)?;
        target.deployment(&self.client, prefer).await
    }
}

/// Runs one command; the answer is the exit code.
///
/// # Errors
/// What the person or script should hear about.
pub async fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Deploy(args) => deploy::run(context, args).await?,
        Command::Ps(args) => ps::run(context, args).await?,
        Command::Status(args) => ps::status(context, &args).await?,
        Command::Logs(args) => logs::run(context, args).await?,
        Command::Exec(args) => return exec::run(context, args).await,
        Command::Start(args) => lifecycle::start(context, args).await?,
        Command::Stop(args) => lifecycle::stop(context, args).await?,
        Command::Restart(args) => lifecycle::restart(context, args).await?,
        Command::Rm(args) => lifecycle::remove(context, args).await?,
        Command::Promote(args) => lifecycle::promote(context, &args).await?,
        Command::Open(args) => open::run(context, args).await?,
        Command::Projects { command } => projects::run(context, command).await?,
        Command::Domains { command } => domains::run(context, command).await?,
        Command::Machines { command } => machines::run(context, command).await?,
        Command::Adapters { command } => adapters::run(context, command).await?,
        Command::Events(args) => events::run(context, args).await?,
        // Needs no host: answered before a context is made.
        Command::Completions { .. } => {}
    }
    Ok(ExitStatus::Ok.code())
}
