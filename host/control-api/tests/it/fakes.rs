//! What the program gives to the API, faked: deployments that do as their command says.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc;

use agent_api::frame::{Decoder, Frame};
use agent_api::{ExecRequest, LogLine, LogQuery};
use api_types::{Exit, HealthReport};
use async_trait::async_trait;
use control_api::{AdapterCatalog, ControlError, DeploymentControl, FrameStream, LineStream, SpecError};
use futures_util::{StreamExt, stream};
use model::{DeploymentId, ExecutionId, Health};
use serde_json::Value;
use tokio::sync::Semaphore;

#[derive(Default)]
pub struct FakeControl {
    executions: Mutex<HashMap<ExecutionId, Vec<Frame>>>,
    pub runs: Mutex<Vec<ExecRequest>>,
    pub queries: Mutex<Vec<LogQuery>>,
    pub log_fails: Mutex<bool>,
}

impl FakeControl {
    /// What a command prints: `print WORD`, `exit CODE`, `binary`, `flood BYTES`, `cut`, `refuse KIND`.
    fn run(request: &ExecRequest) -> Result<Vec<Frame>, ControlError> {
        let argument = request.argv.get(1).cloned().unwrap_or_default();
        let exit = |code| Frame::Exit(Exit::Code(code));
        Ok(match request.argv[0].as_str() {
            "print" => vec![
                Frame::Stdout(format!("{argument} ").into_bytes()),
                Frame::Stderr(b"a warning".to_vec()),
                Frame::Stdout(b"done".to_vec()),
                exit(0),
            ],
            "exit" => vec![exit(argument.parse().unwrap())],
            "binary" => vec![Frame::Stdout(vec![0xff, 0xfe]), exit(0)],
            "flood" => {
                vec![Frame::Stdout("é".repeat(argument.parse::<usize>().unwrap() / 2).into_bytes()), exit(0)]
            }
            "cut" => vec![Frame::Stdout(b"begun".to_vec())],
            "refuse" => {
                return Err(match argument.as_str() {
                    "not-running" => {
                        ControlError::NotRunning("the deployment is stopped: start it first".to_owned())
                    }
                    "unsupported" => ControlError::Unsupported {
                        runtime: "process".to_owned(),
                        interface: "hythe:deployment/control".to_owned(),
                    },
                    "unavailable" => {
                        ControlError::Unavailable("its machine does not answer: try again".to_owned())
                    }
                    "invalid" => ControlError::Invalid("the folder \"nowhere\" is not there".to_owned()),
                    _ => ControlError::Internal("a secret of the host".to_owned()),
                });
            }
            other => panic!("no such command: {other}"),
        })
    }
}

fn streamed(frames: Vec<Frame>) -> FrameStream {
    stream::iter(frames.into_iter().map(Ok)).boxed()
}

#[async_trait]
impl DeploymentControl for FakeControl {
    async fn exec(
        &self,
        _: DeploymentId,
        execution: ExecutionId,
        request: ExecRequest,
    ) -> Result<FrameStream, ControlError> {
        let mut executions = self.executions.lock().unwrap();
        if let Some(frames) = executions.get(&execution) {
            return Ok(streamed(frames.clone()));
        }
        let frames = Self::run(&request)?;
        self.runs.lock().unwrap().push(request);
        executions.insert(execution, frames.clone());
        Ok(streamed(frames))
    }

    async fn attach(
        &self,
        _: DeploymentId,
        execution: ExecutionId,
        cursor: u64,
    ) -> Result<FrameStream, ControlError> {
        let frames =
            self.executions.lock().unwrap().get(&execution).cloned().ok_or(ControlError::NotFound)?;
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let mut decoder = Decoder::default();
        decoder.push(&bytes[cursor as usize..]);
        Ok(streamed(std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()))
    }

    async fn logs(&self, _: DeploymentId, query: LogQuery) -> Result<LineStream, ControlError> {
        let lines = ["one", "two", "three"].map(|text| {
            Ok(LogLine { at_ms: 1_700_000_000_000, origin: "stdout".to_owned(), text: text.to_owned() })
        });
        let lines = stream::iter(lines);
        let follow = query.follow;
        self.queries.lock().unwrap().push(query);
        Ok(if *self.log_fails.lock().unwrap() {
            let error = ControlError::Unavailable("its machine went away".to_owned());
            lines.chain(stream::iter([Err(error)])).boxed()
        } else if follow {
            lines.chain(stream::pending()).boxed()
        } else {
            lines.boxed()
        })
    }

    async fn check_health(&self, _: DeploymentId) -> Result<HealthReport, ControlError> {
        Ok(HealthReport {
            health: Health::Unhealthy,
            detail: Some("answered 500".to_owned()),
            incarnation: 1,
            checked_at: chrono::Utc::now(),
        })
    }
}

/// Knows `process`, whose `command` is an array of texts that are not empty; `panics`; and `waits`, which takes a
/// while.
#[derive(Default)]
pub struct FakeCatalog {
    pub gate: Mutex<Option<Gate>>,
}

/// Holds up a request in the middle of its work.
pub struct Gate {
    pub entered: std::sync::Arc<Semaphore>,
    pub leave: mpsc::Receiver<()>,
}

impl AdapterCatalog for FakeCatalog {
    fn validate_spec(&self, runtime_type: &str, spec: &Value) -> Result<(), SpecError> {
        match runtime_type {
            "process" => {}
            "panics" => panic!("the catalog broke"),
            "waits" => {
                let gate = self.gate.lock().unwrap().take();
                if let Some(gate) = gate {
                    gate.entered.add_permits(1);
                    tokio::task::block_in_place(|| gate.leave.recv()).unwrap();
                }
            }
            _ => {
                let known = ["process", "machine"].map(str::to_owned).to_vec();
                return Err(SpecError::UnknownRuntime { known });
            }
        }
        let Some(command) = spec.get("command").and_then(Value::as_array) else {
            return Err(SpecError::Violations(vec![(String::new(), "\"command\" is required".to_owned())]));
        };
        let wrong = |item: &Value| item.as_str().is_none_or(str::is_empty);
        let violations: Vec<_> = command
            .iter()
            .enumerate()
            .filter(|(_, item)| wrong(item))
            .map(|(index, item)| {
                (format!("/command/{index}"), format!("{item} is not a text of at least 1 character"))
            })
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(SpecError::Violations(violations)) }
    }
}
