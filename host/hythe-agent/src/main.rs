//! The program `hythe-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hythe_agent::cli::main()
}
