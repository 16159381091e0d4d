//! How to run a project that does not say it.
//!
//! Always holds: a guess is told, with its reason and with the `hythe.toml` that would say the same.
//! It only reads files of the folder; nothing is run, and no runtime is named.

mod node;
mod python;

use std::path::Path;

use crate::failure::Failure;
use crate::manifest::{FILE_NAME, Run};

/// A way to run a project, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Guess {
    pub run: Run,
    /// What it was read from: `package.json`.
    pub from: String,
    /// One sentence each, for the person.
    pub reasons: Vec<String>,
}

impl Guess {
    fn new(from: &str) -> Self {
        Self { from: from.to_owned(), ..Self::default() }
    }

    fn because(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// A line for a shell, which puts in `$PORT` and gives way to the program.
    fn exec(&mut self, line: &str) {
        self.shell(&format!("exec {line}"));
    }

    fn shell(&mut self, script: &str) {
        self.run.command = Some(["sh", "-c", script].map(str::to_owned).to_vec());
    }

    fn set_up(&mut self, command: &[&str]) {
        self.run.setup.push(command.iter().map(|word| (*word).to_owned()).collect());
    }
}

/// Looks at `Procfile`, `package.json`, `pyproject.toml` (or `requirements.txt`, `manage.py`) and
/// `index.html`, in this order.
///
/// # Errors
/// Where a file that should tell can't be read, or none of them tells.
pub fn guess(folder: &Path) -> Result<Guess, Failure> {
    let node = node::guess(folder)?;
    let python = python::guess(folder)?;
    if let Some(line) = procfile(folder)? {
        let mut guess = Guess::new("Procfile");
        guess.because(format!("its `web` process is `{line}`"));
        // A Procfile names only the command; what must be installed is said elsewhere, and the command
        // names its programs as if they were installed for all.
        let mut programs = String::new();
        for (other, folder) in [(&node, "node_modules/.bin"), (&python, ".venv/bin")] {
            let Some(other) = other.as_ref().filter(|other| !other.run.setup.is_empty()) else { continue };
            guess.run.setup.extend(other.run.setup.iter().cloned());
            guess.because(format!("{} says what to install; {folder} comes first in PATH", other.from));
            programs.push_str(&format!("$PWD/{folder}:"));
        }
        if programs.is_empty() {
            guess.shell(&line);
        } else {
            guess.shell(&format!("PATH=\"{programs}$PATH\" && export PATH && {line}"));
        }
        return Ok(guess);
    }
    if let Some(guess) = node.clone().filter(is_whole).or_else(|| python.clone().filter(is_whole)) {
        return Ok(guess);
    }
    if folder.join("index.html").is_file() {
        let mut guess = Guess::new("index.html");
        guess.because(
            "its files are served as they are, by Python's own web server (python3 must be on the machine)",
        );
        guess.exec("python3 -m http.server \"$PORT\" --bind 127.0.0.1");
        return Ok(guess);
    }
    let looked = node.or(python).map_or_else(
        || "there is no Procfile, package.json, pyproject.toml, requirements.txt or index.html".to_owned(),
        |partial| partial.reasons.join("; "),
    );
    Err(Failure::usage(format!("can't guess how to run this project: {looked}"))
        .at(folder.display().to_string())
        .hint(format!(
            "say it in {FILE_NAME}, such as: command = 'exec my-server --host 127.0.0.1 --port \"$PORT\"'"
        )))
}

fn is_whole(guess: &Guess) -> bool {
    guess.run.command.is_some()
}

/// The `web` line (<https://devcenter.heroku.com/articles/procfile>).
fn procfile(folder: &Path) -> Result<Option<String>, Failure> {
    let Some(text) = read(folder, "Procfile")? else { return Ok(None) };
    let web = text.lines().find_map(|line| {
        let (name, command) = line.split_once(':')?;
        (name.trim() == "web").then(|| command.trim().to_owned())
    });
    match web {
        Some(command) if !command.is_empty() => Ok(Some(command)),
        _ => Err(Failure::usage("the Procfile has no `web` process")
            .at(folder.join("Procfile").display().to_string())
            .hint(format!("add a line such as `web: node server.js`, or a {FILE_NAME}"))),
    }
}

fn read(folder: &Path, name: &str) -> Result<Option<String>, Failure> {
    let path = folder.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory) =>
        {
            Ok(None)
        }
        Err(error) => {
            Err(Failure::usage(format!("can't read {name}: {error}")).at(path.display().to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
