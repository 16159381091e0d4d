//! Fetcher leases: where a deployment's bytes go, for how long, and how they get there.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use model::{DeploymentId, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::router::Routed;

/// A byte stream to an upstream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Opens streams in a way of its own, such as a tunnel through a machine's daemon.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Opens one stream. Called on a worker thread of ingress, under its connect time-out: it must not
    /// block the thread.
    ///
    /// # Errors
    /// Any error counts as "no byte has reached the upstream", and may be tried again.
    async fn dial(&self) -> io::Result<Box<dyn Stream>>;

    /// Names the place, for logs and to tell whether a renewed lease leads elsewhere.
    fn key(&self) -> &str;
}

/// Where bytes go.
#[derive(Clone)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Dial(Arc<dyn Dial>),
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => a == b,
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Dial(a), Self::Dial(b)) => a.key() == b.key(),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Dial(dial) => write!(f, "dial:{}", dial.key()),
        }
    }
}

/// The answer to "where does this service of this incarnation take requests".
#[derive(Debug, Clone)]
pub struct Lease {
    pub endpoint: Endpoint,
    /// `http` (HTTP/1.1) and `h2c` (HTTP/2 by prior knowledge) are spoken; `https` gets 502
    /// `upstream_unreachable`.
    pub scheme: Scheme,
    /// Replaces `Host`; the original is in `X-Forwarded-Host` either way.
    pub host_header: Option<HeaderValue>,
    /// Set on every request, after the client's own of that name are removed.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// The incarnation that it leads to. An answer for another one than asked for is not used.
    pub incarnation: u64,
    /// None: until the deployment changes.
    pub expires_at: Option<Instant>,
    /// Requests are asked about. None: they all go here, as they are.
    pub routed: Option<Routed>,
}

impl Lease {
    /// A lease of plain HTTP that holds until the deployment changes.
    #[must_use]
    pub fn new(endpoint: Endpoint, incarnation: u64) -> Self {
        Self {
            endpoint,
            scheme: Scheme::Http,
            host_header: None,
            set_headers: Vec::new(),
            incarnation,
            expires_at: None,
            routed: None,
        }
    }
}

/// Answers where deployments take requests. Asked once for each (deployment, incarnation, service), by
/// all workers together; then again in the background before the lease ends, and when connecting to
/// where it led fails again and again.
#[async_trait]
pub trait FetcherSource: Send + Sync + 'static {
    /// `service` is the name of one of the deployment's services, or a decimal port that no service
    /// declares. Called on the runtime that called [`Ingress::bind`](crate::Ingress::bind).
    ///
    /// # Errors
    /// See [`FetchError`]. While it fails, ingress serves from the last lease, however old, until the
    /// incarnation changes; `NotFound` alone ends a lease.
    async fn fetcher(
        &self,
        deployment: DeploymentId,
        incarnation: u64,
        service: &str,
    ) -> Result<Lease, FetchError>;
}

/// Why there is no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nothing of the deployment takes requests there: 404 `service_not_found`.
    #[error("nothing of the deployment takes requests there")]
    NotFound,
    /// Not yet: requests wait and ask again, then get 503 `deployment_starting`.
    #[error("not ready yet, ask again in {} ms", retry_after.as_millis())]
    Busy { retry_after: Duration },
    /// The source is away: 502 `upstream_unreachable` where there never was a lease.
    #[error("{0}")]
    Unavailable(String),
}
