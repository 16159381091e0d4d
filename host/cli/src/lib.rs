//! The commands of `hythe` that talk to a host's REST API.
//!
//! For: people at a terminal and scripts, which get the same by `--json` and exit codes
//! ([`ExitStatus`]). The program `hythe` adds `serve` and `up`, and calls [`run`].
//!
//! Always holds: what the API can't do, no command does: nothing here reads the host's database or
//! its files, except the token that a host on this machine wrote. A repeated request never does a
//! thing twice. No runtime is known by name.
//!
//! Deliberately absent: the host itself, and signing in (a token is all there is yet).

mod archive;
mod args;
mod client;
mod commands;
mod failure;
mod guess;
mod manifest;
mod output;
mod settings;
mod slug;
mod stream;
mod target;
mod words;

use std::path::Path;
use std::process::ExitCode;

pub use args::{
    AdaptersCommand, Command, DeployArgs, EventsArgs, ExecArgs, Globals, LifecycleArgs, LogsArgs,
    MachinesCommand, OpenArgs, ProjectsCommand, PsArgs, RmArgs, TargetArgs,
};
pub use failure::{ExitStatus, Failure};
pub use output::Output;

/// Runs a command on the process's own terminal and in its folder. `P` is the whole program's command
/// line, for `completions`. The answer is the exit code; what went wrong has been said on stderr.
pub async fn run<P: clap::CommandFactory>(globals: Globals, command: Command) -> ExitCode {
    let output = Output::stdio(globals.json);
    let code = run_with(&globals, command, &output, Path::new("."), P::command()).await;
    ExitCode::from(code)
}

/// As [`run`], with another output and folder.
pub async fn run_with(
    globals: &Globals,
    command: Command,
    output: &Output,
    folder: &Path,
    program: clap::Command,
) -> u8 {
    match attempt(globals, command, output, folder, program).await {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            if failure.quiet { ExitStatus::Ok.code() } else { failure.exit.code() }
        }
    }
}

async fn attempt(
    globals: &Globals,
    command: Command,
    output: &Output,
    folder: &Path,
    mut program: clap::Command,
) -> Result<u8, Failure> {
    if let Command::Completions { shell } = command {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, name, &mut script);
        output.bytes(&script)?;
        return Ok(ExitStatus::Ok.code());
    }
    let client = client::Client::new(settings::Settings::resolve(globals)?)?;
    let context = commands::Context { client, output: output.clone(), folder: folder.to_owned() };
    commands::run(&context, command).await
}
