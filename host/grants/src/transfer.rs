//! Adapters' requests to a daemon, and the streams that they point to.

use std::time::Duration;

use adapter_runtime::{Body, Header, HostError, Request, Response};
use agent_client::{AgentClient, AgentError};
use artifacts::ArtifactStore;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use hyper::body::Frame;
use model::Fence;
use tokio_util::io::ReaderStream;

/// The longest answer that a guest is given, in bytes.
pub(crate) const MAX_ANSWER: usize = 4 << 20;
/// How long a call may take where the adapter says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stored archive as a body.
pub(crate) async fn artifact_stream(
    artifacts: &ArtifactStore,
    digest: &str,
) -> Result<impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync + use<>, HostError> {
    Ok(artifact_bytes(artifacts, digest).await?.map_ok(Frame::data))
}

async fn artifact_bytes(
    artifacts: &ArtifactStore,
    digest: &str,
) -> Result<ReaderStream<tokio::fs::File>, HostError> {
    let parsed = digest.parse().map_err(|error| HostError::Invalid(format!("{error}")))?;
    let file = artifacts.get(&parsed).await.map_err(|error| {
        HostError::Unavailable(format!("the archive {digest} can't be read on this host: {error}"))
    })?;
    Ok(ReaderStream::with_capacity(file, 64 * 1024))
}

/// A request to a daemon, bearing the fence; the whole answer.
///
/// # Errors
/// `superseded` where the daemon has seen a later operation, `unavailable` where it does not answer.
pub async fn send_to_agent(
    client: &AgentClient,
    request: Request,
    fence: Option<Fence>,
    artifacts: &ArtifactStore,
) -> Result<Response, HostError> {
    let answer = client.send(convert(request, fence, artifacts).await?).await.map_err(unavailable)?;
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| Header { name: name.to_string(), value: value.as_bytes().to_vec() })
        .collect();
    let status = answer.status.as_u16();
    let body = answer.body.collect(MAX_ANSWER).await.map_err(unavailable)?;
    Ok(Response { status, headers, body })
}

/// A request to a daemon whose answer is a stream.
///
/// # Errors
/// As [`send_to_agent`]; `not-found` and other refusals by their status.
pub async fn stream_from_agent(
    client: &AgentClient,
    request: Request,
    fence: Option<Fence>,
    artifacts: &ArtifactStore,
) -> Result<agent_client::ResponseBody, HostError> {
    let mut request = convert(request, fence, artifacts).await?;
    request.timeout = None;
    let answer = client.send(request).await.map_err(unavailable)?;
    match answer.accepted().await {
        Ok(answer) => Ok(answer.body),
        Err(AgentError::Refused { status, problem, .. }) => Err(match status.as_u16() {
            404 => HostError::NotFound,
            409 => HostError::Superseded,
            400 | 422 => HostError::Invalid(problem.message),
            _ => HostError::Unavailable(problem.message),
        }),
        Err(error) => Err(unavailable(error)),
    }
}

async fn convert(
    request: Request,
    fence: Option<Fence>,
    artifacts: &ArtifactStore,
) -> Result<agent_client::Request, HostError> {
    let invalid = |error: &dyn std::fmt::Display| HostError::Invalid(format!("not an HTTP request: {error}"));
    let mut headers = HeaderMap::new();
    for header in &request.headers {
        let name: HeaderName = header.name.parse().map_err(|error| invalid(&error))?;
        // The fence and the proof are the host's own.
        if name != http::header::AUTHORIZATION && !name.as_str().starts_with("hythe-") {
            headers.append(name, HeaderValue::from_bytes(&header.value).map_err(|error| invalid(&error))?);
        }
    }
    Ok(agent_client::Request {
        method: Method::from_bytes(request.method.as_bytes()).map_err(|error| invalid(&error))?,
        path: request.path,
        fence,
        headers,
        body: match request.body {
            Body::None => agent_client::Body::Empty,
            Body::Inline(bytes) => agent_client::Body::Bytes(bytes),
            Body::Artifact(digest) => agent_client::Body::stream(artifact_bytes(artifacts, &digest).await?),
        },
        timeout: Some(request.timeout.unwrap_or(DEFAULT_TIMEOUT)),
    })
}

/// In words without the machine's address, which is not for guests or users.
fn unavailable(error: AgentError) -> HostError {
    tracing::debug!(error = %error, "a call to a daemon failed");
    HostError::Unavailable(match error {
        AgentError::Connect { .. } => "the machine's daemon can't be reached".to_owned(),
        AgentError::PinMismatch { .. } => {
            "the machine's daemon shows another certificate than was registered".to_owned()
        }
        AgentError::Unauthenticated { .. } => {
            "the host and the machine's daemon don't accept each other".to_owned()
        }
        AgentError::Timeout { after, .. } => {
            format!("the machine's daemon gave no answer within {} ms", after.as_millis())
        }
        AgentError::Interrupted { .. } => "the connection to the machine's daemon broke".to_owned(),
        AgentError::Protocol { .. } => "the machine's daemon doesn't keep to the protocol".to_owned(),
        error @ (AgentError::Refused { .. } | AgentError::InvalidRequest { .. } | AgentError::Body(_)) => {
            error.to_string()
        }
    })
}
