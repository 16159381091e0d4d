//! `exec`: a command inside a deployment, with its own exit code.
//!
//! Always holds: the command runs at most once. The execution's id is chosen here, before anything is
//! sent; when the connection breaks, the same id attaches again from where the output was cut. Output
//! is printed once, in order. Ctrl-C ends the watching, not the command.

use std::collections::BTreeMap;

use api_types::{AttachQuery, Encoding, ExecFrame, ExecRequest, Exit, NDJSON, code};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{DeploymentId, ExecutionId};
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};

use super::Context;
use super::machines::pair;
use crate::args::ExecArgs;
use crate::client::{may_repeat, pause, query};
use crate::failure::{ExitStatus, Failure};
use crate::stream::Lines;
use crate::target::Prefer;

/// Tries in a row that bring nothing new: about half a minute.
const TRIES: u32 = 20;
/// As `timeout(1)` gives it.
const TIMED_OUT: u8 = 124;

pub(super) async fn run(context: &Context, args: ExecArgs) -> Result<u8, Failure> {
    let env: BTreeMap<String, String> =
        args.env.iter().map(|text| pair(text, "--env")).collect::<Result<_, _>>()?;
    let deployment = context.deployment(&args.target, Prefer::Primary).await?;
    let id = ExecutionId::new();
    let request = ExecRequest {
        argv: args.command,
        cwd: args.cwd,
        env,
        timeout_ms: args.timeout.map(|seconds| seconds.saturating_mul(1000)),
        execution_id: Some(id),
    };
    let exit = Execution { context, deployment: deployment.id, id, cursor: None }.follow(&request).await?;
    exit_code(context, &exit)
}

struct Execution<'a> {
    context: &'a Context,
    deployment: DeploymentId,
    id: ExecutionId,
    /// Where the output goes on. None: no frame has come, so it may not even have begun.
    cursor: Option<u64>,
}

impl Execution<'_> {
    async fn follow(&mut self, request: &ExecRequest) -> Result<Exit, Failure> {
        let mut tries = 0;
        loop {
            let cut = match self.attach(request).await {
                Ok(response) => {
                    let before = self.cursor;
                    match self.read(response).await? {
                        Ok(exit) => return Ok(exit),
                        Err(cut) => {
                            if self.cursor != before {
                                tries = 0;
                            }
                            cut
                        }
                    }
                }
                Err(failure) if self.is_passing(&failure) => failure,
                Err(failure) => return Err(failure),
            };
            tries += 1;
            if tries > TRIES {
                return Err(cut.hint(format!(
                    "the command goes on inside {}; its execution is {}",
                    self.deployment, self.id
                )));
            }
            pause(tries).await;
        }
    }

    /// Begins it, or goes on where the output was cut. Beginning again is safe: the id is the same.
    async fn attach(&self, request: &ExecRequest) -> Result<Response, Failure> {
        let client = &self.context.client;
        let path = match self.cursor {
            None => format!("/v1/deployments/{}/exec", self.deployment),
            Some(cursor) => {
                let from = query(&AttachQuery { cursor: Some(cursor) });
                format!("/v1/deployments/{}/executions/{}{from}", self.deployment, self.id)
            }
        };
        let call = match self.cursor {
            None => client.request(Method::POST, &path)?.json(request),
            Some(_) => client.request(Method::GET, &path)?,
        };
        client.send(call.header(ACCEPT, NDJSON)).await
    }

    /// A host that never answered is an error at once; one that has is given time to come back.
    fn is_passing(&self, failure: &Failure) -> bool {
        may_repeat(failure) || (self.cursor.is_some() && failure.exit == ExitStatus::Unreachable)
    }

    /// Prints what comes. The outer failure ends the command, the inner one is a cut.
    async fn read(&mut self, response: Response) -> Result<Result<Exit, Failure>, Failure> {
        let mut lines = Lines::of(response);
        loop {
            let frame = match lines.next_json::<ExecFrame>().await {
                Ok(Some(frame)) => frame?,
                Ok(None) => {
                    return Ok(Err(Failure::new(
                        ExitStatus::Unreachable,
                        "the output ended before the command did",
                    )));
                }
                Err(cut) => return Ok(Err(cut.into())),
            };
            let output = &self.context.output;
            // Each attaching begins with `started`; the command has only once.
            let is_repeated = matches!(frame, ExecFrame::Started { .. }) && self.cursor.is_some();
            if output.is_json() && !is_repeated && !matches!(frame, ExecFrame::Error { .. }) {
                output.record(&frame)?;
            }
            match frame {
                ExecFrame::Started { .. } => self.cursor = self.cursor.or(Some(0)),
                ExecFrame::Stdout { data, encoding, cursor } => {
                    if !output.is_json() {
                        output.bytes(&decode(data, encoding)?)?;
                    }
                    self.cursor = Some(cursor);
                }
                ExecFrame::Stderr { data, encoding, cursor } => {
                    if !output.is_json() {
                        output.error_bytes(&decode(data, encoding)?)?;
                    }
                    self.cursor = Some(cursor);
                }
                ExecFrame::Exit { exit } => return Ok(Ok(exit)),
                ExecFrame::Error { problem } => {
                    let mut failure = Failure::other(problem.to_string());
                    let is_passing = problem.status >= 500 && problem.code != code::INTERNAL;
                    failure.code = Some(problem.code);
                    return if is_passing { Ok(Err(failure)) } else { Err(failure) };
                }
            }
        }
    }
}

fn decode(data: String, encoding: Encoding) -> Result<Vec<u8>, Failure> {
    match encoding {
        Encoding::Utf8 => Ok(data.into_bytes()),
        Encoding::Base64 => STANDARD
            .decode(data)
            .map_err(|error| Failure::other(format!("the command's output can't be read: {error}"))),
    }
}

fn exit_code(context: &Context, exit: &Exit) -> Result<u8, Failure> {
    match exit {
        // The low byte is all that a process's parent sees (POSIX, `wait`).
        Exit::Code(code) => Ok(code.to_le_bytes()[0]),
        Exit::Signal(name) => {
            context.output.note(&format!("the command was ended by {name}"));
            Ok(signal_number(name).map_or(ExitStatus::Failure.code(), |number| 128 + number))
        }
        Exit::TimedOut => {
            context.output.note("the command ran out of its time (--timeout)");
            Ok(TIMED_OUT)
        }
        Exit::Unknown => Err(Failure::other("the command ended while nobody watched: its exit code is lost")),
    }
}

/// Linux's numbers on x86-64 and arm64 (`signal(7)`).
fn signal_number(name: &str) -> Option<u8> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let index = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(index + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_numbers() {
        assert_eq!(["SIGHUP", "SIGKILL", "TERM", "SIGSYS"].map(signal_number), [1, 9, 15, 31].map(Some));
        assert_eq!(signal_number("SIGRTMIN+3"), None);
    }
}
