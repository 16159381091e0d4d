//! `hythe`: the host, and the commands that talk to one.

mod activity_feed;
mod adapters;
mod attend;
mod config;
mod control;
mod data_dir;
mod deciders;
mod faults;
mod fetchers;
mod files;
mod host;
mod local_agent;
mod machines;
mod routes_feed;
mod serve_command;
mod successor;
mod systemd;
mod tls;
mod up;
mod upgrade_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The hidden command by which the host compiles components in a process of its own.
const COMPILER_COMMAND: &str = "compile-component";

/// A deployment-first ingress and control host whose runtimes are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "hythe", version, propagate_version = true)]
struct Program {
    #[command(flatten)]
    globals: cli::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: the host, its database, two machines and a sample project.
    Up(up::Arguments),
    /// Run the host.
    Serve(serve_command::Arguments),
    /// Put the program that is installed now in the place of the running host, without losing a request.
    Upgrade(upgrade_command::Arguments),
    /// Tell how to trust the development CA of a host on this machine.
    Trust(tls::TrustArguments),
    #[command(name = COMPILER_COMMAND, hide = true)]
    CompileComponent,
    #[command(flatten)]
    Client(cli::Command),
}

fn main() -> ExitCode {
    successor::remember_call();
    let Program { mut globals, command } = Program::parse();
    globals.data_dir.get_or_insert_with(data_dir::DataDir::default_path);
    if let Command::CompileComponent = command {
        return match adapter_runtime::run_compiler() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                anstream::eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Command::Trust(arguments) = &command {
        return finish(tls::trust(arguments));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match command {
            Command::Upgrade(arguments) => finish(upgrade_command::run(&arguments).await),
            Command::Client(command) => cli::run::<Program>(globals, command).await,
            Command::Up(arguments) => finish(up::run(arguments).await),
            Command::Serve(arguments) => finish(serve_command::run(arguments).await),
            Command::CompileComponent | Command::Trust(_) => ExitCode::FAILURE,
        }
    });
    // A blocking task (a name look-up, a read of the terminal) must not keep the process.
    runtime.shutdown_background();
    code
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        anstream::eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
