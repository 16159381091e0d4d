//! `hythe.toml`: what a project says about how it is to be run.
//!
//! Always holds: reading never guesses. A key that is not known, or a value of another type, is an
//! error with its line. What the file says about running (`command`, `env`, …) becomes the
//! deployment's `spec`, whatever the runtime; `[spec]` is passed on as it is. Whether a spec is right
//! is for the runtime's own schema to say, on the host.

mod read;

use std::collections::BTreeMap;
use std::path::Path;

use model::{RuntimeType, Scheme, Service, Slug, WakePolicy};
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The file's name in a project's folder.
pub const FILE_NAME: &str = "hythe.toml";
/// The port by which the default service is known where nothing names one. The workload itself
/// listens on `$PORT`.
pub const DEFAULT_PORT: u16 = 3000;

/// What a project says. Empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    pub project: Option<Slug>,
    pub runtime: Option<RuntimeType>,
    pub wake: Option<WakePolicy>,
    /// It is stopped when nothing has gone on at it for so long.
    pub idle_timeout_seconds: Option<u32>,
    /// The first is the default service.
    pub services: Vec<Service>,
    pub run: Run,
    /// `[spec]`: keys of the runtime's own.
    pub spec: Map<String, Value>,
}

/// The part of a spec that has keys of its own in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// The program and its arguments. A string in the file is `["sh", "-c", string]`.
    pub command: Option<Vec<String>>,
    /// Run in order, to their end, before the first start.
    pub setup: Vec<Vec<String>>,
    pub env: BTreeMap<String, String>,
    /// Relative to the project's folder.
    pub cwd: Option<String>,
    /// `memoryMb`, `cpus`, `processes`.
    pub limits: Map<String, Value>,
    /// `maxAttempts`, `backoffMs`, `maxBackoffMs`.
    pub restart: Map<String, Value>,
    pub start_timeout_ms: Option<u64>,
}

impl Manifest {
    /// Reads `hythe.toml` of a folder; none where there is no such file.
    ///
    /// # Errors
    /// Where it can't be read or is wrong: with the line and what would be right.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, Failure> {
        let path = folder.join(FILE_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => read::parse(&text, &path.display().to_string()).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Failure::usage(format!("can't read {FILE_NAME}: {error}")).at(path.display().to_string()))
            }
        }
    }

    /// Reads the text of a `hythe.toml`; `name` is what errors call the file.
    #[cfg(test)]
    pub fn parse(text: &str, name: &str) -> Result<Self, Failure> {
        read::parse(text, name)
    }

    /// The deployment's `spec`.
    #[must_use]
    pub fn deployment_spec(&self) -> Map<String, Value> {
        let mut spec = self.spec.clone();
        let mut put = |key: &str, value: Value| {
            spec.insert(key.to_owned(), value);
        };
        let run = &self.run;
        if let Some(command) = &run.command {
            put("command", json!(command));
        }
        if !run.setup.is_empty() {
            put("setup", json!(run.setup));
        }
        if !run.env.is_empty() {
            put("env", json!(run.env));
        }
        if let Some(cwd) = &run.cwd {
            put("cwd", json!(cwd));
        }
        if !run.limits.is_empty() {
            put("limits", Value::Object(run.limits.clone()));
        }
        if !run.restart.is_empty() {
            put("restart", Value::Object(run.restart.clone()));
        }
        if let Some(timeout) = run.start_timeout_ms {
            put("startTimeoutMs", json!(timeout));
        }
        spec
    }

    /// The services, or the one that there is where none is named.
    ///
    /// # Errors
    /// Never in practice: the default's name is a valid one.
    pub fn services(&self) -> Result<Vec<Service>, Failure> {
        if !self.services.is_empty() {
            return Ok(self.services.clone());
        }
        let name = "web".parse().map_err(|error| Failure::other(format!("{error}")))?;
        Ok(vec![Service { name, port: DEFAULT_PORT, scheme: Scheme::Http }])
    }

    /// The file that says the same. Only what a guess can hold: no limits, no `[spec]`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut put = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        if let Some(project) = &self.project {
            put(format!("project = {}", quoted(project.as_str())));
        }
        if let Some(runtime) = &self.runtime {
            put(format!("runtime = {}", quoted(runtime.as_str())));
        }
        match self.run.setup.as_slice() {
            [] => {}
            [one] => put(format!("setup = [{}]", command_text(one))),
            several => {
                put("setup = [".to_owned());
                for command in several {
                    put(format!("  {},", command_text(command)));
                }
                put("]".to_owned());
            }
        }
        if let Some(command) = &self.run.command {
            put(format!("command = {}", command_text(command)));
        }
        if let Some(cwd) = &self.run.cwd {
            put(format!("cwd = {}", quoted(cwd)));
        }
        for service in &self.services {
            put(format!("\n[services.{}]\nport = {}", service.name, service.port));
            if service.scheme != Scheme::Http {
                put(format!("scheme = {}", quoted(service.scheme.as_str())));
            }
        }
        if !self.run.env.is_empty() {
            put("\n[env]".to_owned());
            for (name, value) in &self.run.env {
                put(format!("{} = {}", toml_key(name), quoted(value)));
            }
        }
        text
    }
}

/// A command as the file writes it: a string where a shell reads it, else an array.
fn command_text(command: &[String]) -> String {
    match command {
        [shell, flag, script] if shell == "sh" && flag == "-c" => quoted(script),
        _ => format!("[{}]", command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")),
    }
}

fn toml_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

/// A TOML string; literal (`'…'`) where that spares escapes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c != '\'' && (!c.is_control());
    if text.contains(['"', '\\']) && text.chars().all(plain) {
        format!("'{text}'")
    } else {
        toml::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests;
