//! A grant's HTTP service, over TCP or a unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use adapter_runtime::{Body, Header, HostError, Request, Response};
use artifacts::ArtifactStore;
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Granted;
use crate::transfer::{MAX_ANSWER, artifact_stream};

/// How long a call may take where the adapter says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An address of the operator's configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the address {address:?} is not `http://host:port` or `unix:/path`: {reason}")]
pub struct TargetError {
    address: String,
    reason: String,
}

#[derive(Clone)]
enum Connect {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// An HTTP/1.1 service that a grant names.
#[derive(Clone)]
pub struct HttpTarget {
    connect: Connect,
    /// The `Host` of calls.
    authority: String,
    /// Sent as `authorization` with the adapter's own calls.
    authorization: Option<SecretString>,
}

impl HttpTarget {
    /// Reads `http://host[:port]` or `unix:/path`.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn parse(address: &str, authorization: Option<SecretString>) -> Result<Self, TargetError> {
        let error = |reason: &str| TargetError { address: address.to_owned(), reason: reason.to_owned() };
        if let Some(path) = address.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(error("the socket's path is not absolute"));
            }
            return Ok(Self {
                connect: Connect::Unix(path),
                authority: "localhost".to_owned(),
                authorization,
            });
        }
        let uri: http::Uri = address.parse().map_err(|_| error("it is no URL"))?;
        if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(error("it has another scheme, or a path"));
        }
        let authority = uri.authority().ok_or_else(|| error("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(TargetError {
                address: format!("http://…@{}", authority.host()),
                reason: "it holds a credential: put that into `authorization`".to_owned(),
            });
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let connect = Connect::Tcp { host, port: authority.port_u16().unwrap_or(80) };
        Ok(Self { connect, authority: authority.to_string(), authorization })
    }

    /// Whether this names the grant's own address.
    pub(crate) fn is(&self, address: Option<&str>, port: Option<u16>) -> bool {
        match &self.connect {
            Connect::Tcp { host, port: own } => {
                address.is_none_or(|address| address == host) && port.is_none_or(|port| port == *own)
            }
            Connect::Unix(_) => false,
        }
    }

    pub(crate) async fn resolve(&self) -> Result<Granted, HostError> {
        match &self.connect {
            Connect::Unix(path) => Ok(Granted::Unix(path.clone())),
            Connect::Tcp { host, port } => Ok(Granted::Tcp(self.look_up(host, *port).await?)),
        }
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<SocketAddr, HostError> {
        let found = tokio::net::lookup_host((host, port)).await;
        found
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| HostError::Unavailable(format!("the name {host:?} of {self} can't be resolved")))
    }

    pub(crate) async fn send(
        &self,
        request: Request,
        artifacts: &ArtifactStore,
    ) -> Result<Response, HostError> {
        let timeout = request.timeout.unwrap_or(DEFAULT_TIMEOUT);
        tokio::time::timeout(timeout, self.exchange(request, artifacts)).await.unwrap_or_else(|_| {
            Err(HostError::Unavailable(format!("{self} did not answer within {} ms", timeout.as_millis())))
        })
    }

    async fn exchange(&self, request: Request, artifacts: &ArtifactStore) -> Result<Response, HostError> {
        let (head, body) = self.open(request, artifacts).await?;
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            HostError::Unavailable(format!(
                "the answer of {self} broke off or is longer than {MAX_ANSWER} bytes: {error}"
            ))
        })?;
        Ok(Response {
            status: head.status.as_u16(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| Header { name: name.to_string(), value: value.as_bytes().to_vec() })
                .collect(),
            body: body.to_bytes(),
        })
    }

    /// The head of the answer, and its body as it comes. The connection ends with the body.
    pub(crate) async fn open(
        &self,
        request: Request,
        artifacts: &ArtifactStore,
    ) -> Result<(http::response::Parts, Incoming), HostError> {
        let request = self.request(request, artifacts).await?;
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, self.connect());
        let io = connect
            .await
            .unwrap_or_else(|_| Err(HostError::Unavailable(format!("{self} can't be reached in time"))))?;
        let broken =
            |error: hyper::Error| HostError::Unavailable(format!("{self} broke off the exchange: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await.map_err(broken)?.into_parts())
    }

    async fn connect(&self) -> Result<Box<dyn Io>, HostError> {
        let unreachable =
            |error: std::io::Error| HostError::Unavailable(format!("{self} can't be reached: {error}"));
        match &self.connect {
            Connect::Unix(path) => {
                Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(unreachable)?))
            }
            Connect::Tcp { host, port } => {
                let address = self.look_up(host, *port).await?;
                let stream = tokio::net::TcpStream::connect(address).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                Ok(Box::new(stream))
            }
        }
    }

    async fn request(
        &self,
        request: Request,
        artifacts: &ArtifactStore,
    ) -> Result<http::Request<BoxBody<Bytes, std::io::Error>>, HostError> {
        let body = match request.body {
            Body::None => Empty::new().map_err(|never| match never {}).boxed(),
            Body::Inline(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed(),
            Body::Artifact(digest) => {
                BodyExt::boxed(StreamBody::new(artifact_stream(artifacts, &digest).await?))
            }
        };
        let mut builder = http::Request::builder().method(request.method.as_str()).uri(request.path.as_str());
        for header in &request.headers {
            if is_adapters_own(&header.name) {
                builder = builder.header(header.name.as_str(), header.value.as_slice());
            }
        }
        builder = builder.header(http::header::HOST, self.authority.as_str());
        if let Some(authorization) = &self.authorization {
            let mut value = HeaderValue::from_str(authorization.expose_secret())
                .map_err(|_| HostError::Denied(format!("the credential of {self} is no header value")))?;
            value.set_sensitive(true);
            builder = builder.header(http::header::AUTHORIZATION, value);
        }
        builder.body(body).map_err(|error| HostError::Invalid(format!("not an HTTP request: {error}")))
    }
}

impl std::fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.connect {
            Connect::Tcp { .. } => write!(f, "http://{}", self.authority),
            Connect::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Headers that only the host sets.
fn is_adapters_own(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !matches!(
        name.as_str(),
        "host"
            | "authorization"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "trailer"
            | "proxy-authorization"
    )
}
