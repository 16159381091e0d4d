//! Loads a component as the host would, and prints what it is; exits with 1 and the reason where it is no
//! adapter: `cargo run -p adapter-runtime --example check-adapter -- FILE`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

use adapter_runtime::{AdapterRuntime, RuntimeConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("give the component's file: check-adapter FILE");
        return ExitCode::from(2);
    };
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::from(2);
        }
    };
    let name = std::path::Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match check(&name, &bytes).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn check(name: &str, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let adapter = AdapterRuntime::new(RuntimeConfig::default())?.load(name, bytes).await?;
    let descriptor = adapter.descriptor();
    println!("runtime type  {} {}", descriptor.runtime_type, descriptor.version);
    println!("summary       {}", descriptor.summary);
    for (name, what_for) in &descriptor.grants {
        println!("needs grant   {name}: {what_for}");
    }
    let exports = adapter.exports();
    println!("also exports  {}", if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") });
    println!("spec schema   {}", descriptor.spec_schema);
    Ok(())
}
