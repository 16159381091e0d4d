//! Other programs: run with their output shown or taken, and an error that says what was run.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::workspace::root;

/// A program to run in the repository's root.
#[derive(Debug)]
pub struct Command(std::process::Command);

impl Command {
    /// Standard input is empty: nothing here asks a person.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = std::process::Command::new(program);
        command.current_dir(root()).stdin(Stdio::null());
        Self(command)
    }

    /// The cargo that runs us. Queries are checked against `.sqlx`, unless said otherwise.
    pub fn cargo(subcommand: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::new(cargo).arg(subcommand).env("SQLX_OFFLINE", "true")
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.0.args(arguments);
        self
    }

    /// The flag and a name, for each of the names.
    pub fn each<'a>(self, flag: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(self, |command, name| command.arg(flag).arg(name))
    }

    /// `--features`, where there are any.
    pub fn features(self, features: &[String]) -> Self {
        if features.is_empty() { self } else { self.arg("--features").arg(features.join(",")) }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn folder(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Program and arguments as one would type them.
    pub fn line(&self) -> String {
        let program = Path::new(self.0.get_program());
        // Where cargo is says nothing: it is the one that runs us.
        let program = if program.ends_with("cargo") { OsStr::new("cargo") } else { program.as_os_str() };
        let words = std::iter::once(program).chain(self.0.get_args());
        let words: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
        words.join(" ")
    }

    /// Runs it to its end with its output shown.
    ///
    /// # Errors
    /// Where it can't be run, or says by its exit code that it failed.
    pub fn run(mut self) -> Result<()> {
        let status = self.0.status().with_context(|| format!("can't run `{}`", self.line()))?;
        if !status.success() {
            bail!("`{}` failed ({status}): see its output above", self.line());
        }
        Ok(())
    }

    /// Runs it to its end and gives what it wrote to standard output.
    ///
    /// # Errors
    /// As [`run`](Self::run); with what it wrote to standard error.
    pub fn output(mut self) -> Result<String> {
        let output = self.0.output().with_context(|| format!("can't run `{}`", self.line()))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed ({}):\n{}", self.line(), output.status, errors.trim_end());
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("`{}` printed what is not UTF-8", self.line()))
    }

    /// Starts it and leaves it running, in a process group of its own.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn spawn(
        mut self,
        output: impl Into<Stdio>,
        errors: impl Into<Stdio>,
    ) -> Result<std::process::Child> {
        use std::os::unix::process::CommandExt as _;
        self.0.stdout(output).stderr(errors).process_group(0);
        self.0.spawn().with_context(|| format!("can't run `{}`", self.line()))
    }

    /// Becomes the program, with our standard input. Returns only where that fails.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn exec(mut self) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        self.0.stdin(Stdio::inherit());
        let error = self.0.exec();
        Err(error).with_context(|| format!("can't run `{}`", self.line()))
    }
}

/// The word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"]).output().unwrap_err();
        let error = error.to_string();
        assert!(error.contains("`sh -c 'echo no such luck >&2; exit 3'` failed (exit status: 3)"), "{error}");
        assert!(error.ends_with("no such luck"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = format!("{:#}", Command::new("hythe-no-such-program").run().unwrap_err());
        assert!(error.starts_with("can't run `hythe-no-such-program`"), "{error}");
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("a/b-c=1"), "a/b-c=1");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
