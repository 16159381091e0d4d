//! How a command ends: its exit code, and what it says when it did not work.

use std::process::ExitCode;

/// Exit codes that scripts can rely on. `exec` gives the command's own instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Ok = 0,
    /// Something else went wrong.
    Failure = 1,
    /// The command line, or a file that it names, is wrong. clap uses it too.
    Usage = 2,
    NotFound = 3,
    Unauthorised = 4,
    /// No host answers at the address.
    Unreachable = 5,
    /// It did not happen in the time given. It may still.
    TimedOut = 6,
    /// The host did as told, and the deployment failed.
    DeploymentFailed = 7,
}

impl ExitStatus {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    pub exit: ExitStatus,
    /// One sentence.
    pub what: String,
    /// A file and line, or a request.
    pub place: Option<String>,
    /// What the user can do.
    pub hint: Option<String>,
    /// The API's stable code, where the failure is its answer.
    pub code: Option<String>,
    /// The reader of our output has heard enough: end without a word, as if all had been said.
    pub(crate) quiet: bool,
}

impl Failure {
    pub fn new(exit: ExitStatus, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), place: None, hint: None, code: None, quiet: false }
    }

    /// [`ExitStatus::Failure`].
    pub fn other(what: impl Into<String>) -> Self {
        Self::new(ExitStatus::Failure, what)
    }

    /// [`ExitStatus::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ExitStatus::Usage, what)
    }

    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As people read it: `error: …`, `  where: …`, `  hint: …`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("error: {}", self.what);
        if let Some(place) = &self.place {
            text.push_str(&format!("\n  where: {place}"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        text
    }

    /// As `--json` says it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "message": self.what,
            "where": self.place,
            "hint": self.hint,
            "code": self.code,
            "exitCode": self.exit.code(),
        }})
    }
}

/// Writing failed. A closed pipe (`hythe logs | head`) is the reader's choice, no error.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { quiet, ..Self::other(format!("can't write the output: {error}")) }
    }
}
