//! Calls of adapters outside operations: where requests go, commands, logs, health.

use std::sync::Arc;

use adapter_runtime::{
    Attachment, CallError, Command, DeploymentError, Execution, Exit, Fetcher, Framing, Health, LogSource,
    Tail, Transport, Upstream,
};
use agent_api::frame::{Decoder, Frame};
use agent_api::{ExecRequest, LogLine, LogQuery};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use grants::ByteStream;
use model::{DeploymentId, ExecutionId, RuntimeType, Seen};
use store::{Deployment, StoreError};

use crate::adapters::LoadedAdapter;
use crate::call_host::CallHost;
use crate::executor::Context;
use crate::upstream::{self, ResolvedUpstream};

/// Output of a command as it comes; whole only where the last item is an exit.
pub type ExecutionStream = BoxStream<'static, Result<Frame, CallsError>>;
/// Lines as they come.
pub type LogStream = BoxStream<'static, Result<LogLine, CallsError>>;

/// The longest line of a log stream, in bytes.
const MAX_LINE: usize = 256 * 1024;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    #[error("there is no deployment {0}")]
    NoDeployment(DeploymentId),
    #[error("no adapter is configured for the runtime type `{0}`")]
    NoAdapter(RuntimeType),
    /// The deployment is not in a state for it.
    #[error("the deployment is {seen}: start it first")]
    NotRunning { seen: Seen },
    #[error(transparent)]
    Call(#[from] CallError),
    /// What the adapter pointed to could not be opened.
    #[error("what the adapter points to can't be opened: {0}")]
    Attach(#[source] DeploymentError),
    #[error("the runtime `{runtime}` has no `{interface}`")]
    Unsupported { runtime: String, interface: &'static str },
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a service takes requests.
#[derive(Clone)]
pub struct ServiceFetcher {
    /// The adapter's own answer.
    pub fetcher: Fetcher,
    pub upstream: ResolvedUpstream,
    /// The deployment's adapter, where it exports `http-routing`.
    pub decider: Option<RuntimeType>,
}

/// Calls adapters for what users ask. May ask, never change what is wanted or held.
#[derive(Clone)]
pub struct DeploymentCalls {
    context: Arc<Context>,
}

impl DeploymentCalls {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn target(&self, id: DeploymentId) -> Result<(Deployment, Arc<LoadedAdapter>), CallsError> {
        let deployment = match self.context.store.deployment_get(id).await {
            Ok(deployment) => deployment,
            Err(StoreError::NotFound { .. }) => return Err(CallsError::NoDeployment(id)),
            Err(error) => return Err(error.into()),
        };
        let adapter = self.context.adapters.get(&deployment.runtime_type);
        let adapter = adapter.ok_or_else(|| CallsError::NoAdapter(deployment.runtime_type.clone()))?;
        Ok((deployment, adapter))
    }

    fn host(&self, deployment: &Deployment, adapter: &Arc<LoadedAdapter>) -> Arc<CallHost> {
        CallHost::new(self.context.clone(), adapter.clone(), deployment, deployment.seen_incarnation, None)
    }

    /// Where a service takes requests, with the adapter's own answer for its headers and time, and who is to be
    /// asked about each request.
    ///
    /// # Errors
    /// `NotRunning` where another incarnation, or none, runs.
    pub async fn fetcher(
        &self,
        id: DeploymentId,
        incarnation: u64,
        service: &str,
    ) -> Result<ServiceFetcher, CallsError> {
        let (deployment, adapter) = self.target(id).await?;
        if deployment.seen != Seen::Running || deployment.seen_incarnation != incarnation {
            return Err(CallsError::NotRunning { seen: deployment.seen });
        }
        let fetcher = adapter.adapter.get_fetcher(self.host(&deployment, &adapter), service).await?;
        let resolved = upstream::resolve(&self.context, &adapter.grants, id, &fetcher.upstream).await;
        let upstream = resolved.map_err(CallsError::Attach)?;
        let decider = adapter.adapter.routing().is_some().then(|| deployment.runtime_type.clone());
        Ok(ServiceFetcher { fetcher, upstream, decider })
    }

    /// Whether the deployment answers as it should, by its adapter's own means, and which incarnation
    /// was asked.
    ///
    /// # Errors
    /// `Unsupported` where the adapter has none.
    pub async fn check_health(&self, id: DeploymentId) -> Result<(Health, u64), CallsError> {
        let (deployment, adapter) = self.target(id).await?;
        if deployment.seen != Seen::Running {
            return Err(CallsError::NotRunning { seen: deployment.seen });
        }
        self.exports(&adapter, "health-check")?;
        let health = adapter.adapter.check_health(self.host(&deployment, &adapter)).await?;
        Ok((health, deployment.seen_incarnation))
    }

    /// Runs a command; with an execution id that was used before, attaches to it.
    ///
    /// # Errors
    /// `NotRunning`, `Unsupported`, those of the adapter and of opening the stream.
    pub async fn exec(
        &self,
        id: DeploymentId,
        execution: ExecutionId,
        request: ExecRequest,
    ) -> Result<ExecutionStream, CallsError> {
        let (deployment, adapter) = self.target(id).await?;
        if !matches!(deployment.seen, Seen::Running | Seen::Starting) {
            return Err(CallsError::NotRunning { seen: deployment.seen });
        }
        self.exports(&adapter, "control")?;
        let command = Command {
            argv: request.argv,
            cwd: request.cwd,
            env: request.env.into_iter().collect(),
            tty: None,
            timeout: request.timeout_ms.map(std::time::Duration::from_millis),
        };
        let host = self.host(&deployment, &adapter);
        let answer = adapter.adapter.exec(host, &execution.to_string(), command).await?;
        self.open_execution(&deployment, &adapter, answer).await
    }

    /// Output of a command from so many bytes on.
    ///
    /// # Errors
    /// As [`exec`](Self::exec); `not-found` from the adapter where the command is not known (any more).
    pub async fn attach(
        &self,
        id: DeploymentId,
        execution: ExecutionId,
        cursor: u64,
    ) -> Result<ExecutionStream, CallsError> {
        let (deployment, adapter) = self.target(id).await?;
        self.exports(&adapter, "control")?;
        let host = self.host(&deployment, &adapter);
        let answer = adapter.adapter.attach(host, &execution.to_string(), cursor).await?;
        self.open_execution(&deployment, &adapter, answer).await
    }

    /// What the deployment has printed.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub async fn logs(&self, id: DeploymentId, query: LogQuery) -> Result<LogStream, CallsError> {
        let (deployment, adapter) = self.target(id).await?;
        self.exports(&adapter, "logs")?;
        let tail = Tail { lines: query.lines, follow: query.follow, since_ms: query.since_ms };
        match adapter.adapter.read_logs(self.host(&deployment, &adapter), tail).await? {
            LogSource::Finished(lines) => {
                let lines = lines.into_iter().map(|line| {
                    Ok(LogLine {
                        at_ms: line.at_ms.unwrap_or_default(),
                        origin: line.origin,
                        text: line.text,
                    })
                });
                Ok(futures_util::stream::iter(lines).boxed())
            }
            LogSource::Attached(attachment) => {
                let framing = attachment.framing;
                let bytes = self.open(&deployment, &adapter, attachment).await?;
                let lines = tokio_util::io::StreamReader::new(bytes);
                let lines = tokio_util::codec::FramedRead::new(
                    lines,
                    tokio_util::codec::LinesCodec::new_with_max_length(MAX_LINE),
                );
                let line = move |text: String| match framing {
                    Framing::Hythe => serde_json::from_str(&text).map_err(|error| {
                        CallsError::Broken(format!("a line of the log can't be read: {error}"))
                    }),
                    _ => Ok(LogLine { at_ms: 0, origin: "stdout".to_owned(), text }),
                };
                Ok(lines
                    .map(move |read| line(read.map_err(|error| CallsError::Broken(error.to_string()))?))
                    .boxed())
            }
        }
    }

    fn exports(&self, adapter: &LoadedAdapter, interface: &'static str) -> Result<(), CallsError> {
        if adapter.adapter.exports().contains(&interface) {
            return Ok(());
        }
        let runtime = adapter.adapter.descriptor().runtime_type.to_string();
        Err(CallsError::Unsupported { runtime, interface })
    }

    async fn open_execution(
        &self,
        deployment: &Deployment,
        adapter: &LoadedAdapter,
        execution: Execution,
    ) -> Result<ExecutionStream, CallsError> {
        match execution {
            Execution::Finished(output) => {
                let exit = match output.exit {
                    Exit::Code(code) => agent_api::Exit::Code(code),
                    Exit::Signal(name) => agent_api::Exit::Signal(name),
                    Exit::TimedOut => agent_api::Exit::TimedOut,
                    Exit::Unknown => agent_api::Exit::Unknown,
                };
                let frames = [Frame::Stdout(output.stdout), Frame::Stderr(output.stderr), Frame::Exit(exit)];
                Ok(futures_util::stream::iter(frames.map(Ok)).boxed())
            }
            Execution::Attached(attachment) => {
                if attachment.framing != Framing::Hythe {
                    return Err(CallsError::Attach(DeploymentError::Unsupported));
                }
                Ok(frames(self.open(deployment, adapter, attachment).await?))
            }
        }
    }

    async fn open(
        &self,
        deployment: &Deployment,
        adapter: &LoadedAdapter,
        attachment: Attachment,
    ) -> Result<ByteStream, CallsError> {
        let artifacts = &self.context.artifacts;
        if attachment.transport != Transport::HttpStream {
            return Err(CallsError::Attach(DeploymentError::Unsupported));
        }
        let stream = match &attachment.upstream {
            Upstream::Agent => {
                let client = upstream::machine_client(&self.context, deployment.id)
                    .await
                    .map_err(CallsError::Attach)?;
                grants::stream_from_agent(&client, attachment.request, None, artifacts)
                    .await
                    .map(|body| body.map_err(std::io::Error::other).boxed())
            }
            Upstream::Granted(place) if place.address.is_none() && place.port.is_none() => {
                adapter.grants.open(&place.grant, attachment.request, artifacts).await
            }
            _ => Err(DeploymentError::Unsupported),
        };
        stream.map_err(CallsError::Attach)
    }
}

/// Reads frames; ends after the exit.
fn frames(bytes: ByteStream) -> ExecutionStream {
    struct State {
        bytes: ByteStream,
        decoder: Decoder,
        ended: bool,
    }
    let state = State { bytes, decoder: Decoder::default(), ended: false };
    futures_util::stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        loop {
            match state.decoder.next_frame() {
                Ok(Some(frame)) => {
                    state.ended = matches!(frame, Frame::Exit(_));
                    return Some((Ok(frame), state));
                }
                Ok(None) => {}
                Err(error) => {
                    state.ended = true;
                    return Some((Err(CallsError::Broken(error.to_string())), state));
                }
            }
            let more: Option<std::io::Result<Bytes>> = state.bytes.next().await;
            match more {
                Some(Ok(bytes)) => state.decoder.push(&bytes),
                Some(Err(error)) => {
                    state.ended = true;
                    return Some((Err(CallsError::Broken(error.to_string())), state));
                }
                None => {
                    state.ended = true;
                    let cut = "the output ended before the command did: attach again".to_owned();
                    return Some((Err(CallsError::Broken(cut)), state));
                }
            }
        }
    })
    .boxed()
}
