//! Joins ingress to adapters: where requests go, and waking what sleeps.

use std::io;
use std::time::{Duration, Instant};

use adapter_runtime::DeploymentError;
use agent_client::AgentClient;
use async_trait::async_trait;
use grants::Granted;
use http::{HeaderName, HeaderValue};
use ingress::{Dial, Endpoint, FetchError, FetcherSource, Lease, Stream, WakeError, Waker};
use model::DeploymentId;
use reconciler::{CallsError, DeploymentCalls, ResolvedUpstream, ServiceFetcher};
use store::{Store, StoreError};

/// When to ask again for what does not run yet.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Answers ingress from adapters.
pub struct Fetchers {
    pub calls: DeploymentCalls,
}

#[async_trait]
impl FetcherSource for Fetchers {
    async fn fetcher(
        &self,
        deployment: DeploymentId,
        incarnation: u64,
        service: &str,
    ) -> Result<Lease, FetchError> {
        let ServiceFetcher { fetcher, upstream, decider } = self
            .calls
            .fetcher(deployment, incarnation, service)
            .await
            .map_err(|error| fetch_error(deployment, &error))?;
        let endpoint = match upstream {
            ResolvedUpstream::Granted(Granted::Tcp(address)) => Endpoint::Tcp(address),
            ResolvedUpstream::Granted(Granted::Unix(path)) => Endpoint::Unix(path),
            ResolvedUpstream::Tunnel { client, port } => {
                Endpoint::Dial(std::sync::Arc::new(MachinePort::new(client, deployment, incarnation, port)))
            }
        };
        let invalid = |what: &str| FetchError::Unavailable(format!("the adapter gave an invalid {what}"));
        let set_headers = fetcher.set_headers.iter().map(|header| {
            Some((HeaderName::try_from(&header.name).ok()?, HeaderValue::from_bytes(&header.value).ok()?))
        });
        let routed = decider.and_then(|adapter| {
            routing::routed(adapter.as_str(), &deployment.to_string(), service, &fetcher)
        });
        Ok(Lease {
            endpoint,
            scheme: fetcher.scheme,
            host_header: match fetcher.host_header {
                Some(host) => Some(HeaderValue::try_from(host).map_err(|_| invalid("host header"))?),
                None => None,
            },
            set_headers: set_headers.collect::<Option<_>>().ok_or_else(|| invalid("header to set"))?,
            incarnation,
            expires_at: fetcher.ttl.map(|ttl| Instant::now() + ttl),
            routed,
        })
    }
}

fn fetch_error(deployment: DeploymentId, error: &CallsError) -> FetchError {
    match error {
        CallsError::NotRunning { .. } => FetchError::Busy { retry_after: RETRY_AFTER },
        CallsError::NoDeployment(_) => FetchError::NotFound,
        CallsError::Call(call) => match call.answered() {
            Some(DeploymentError::NotFound) => FetchError::NotFound,
            Some(DeploymentError::Busy(after)) => FetchError::Busy { retry_after: *after },
            _ => {
                tracing::warn!(%deployment, %error, "an adapter did not say where requests go");
                FetchError::Unavailable("the deployment's runtime does not answer".to_owned())
            }
        },
        error => {
            tracing::warn!(%deployment, %error, "where requests go can't be found out");
            FetchError::Unavailable("where the deployment runs can't be found out now".to_owned())
        }
    }
}

/// A local port of a machine, through its daemon.
struct MachinePort {
    client: AgentClient,
    deployment: String,
    incarnation: u64,
    port: u16,
    key: String,
}

impl MachinePort {
    fn new(client: AgentClient, deployment: DeploymentId, incarnation: u64, port: u16) -> Self {
        let endpoint = client.endpoint();
        let key = format!("{}:{}/{port}", endpoint.machine_id, endpoint.port);
        Self { client, deployment: deployment.to_string(), incarnation, port, key }
    }
}

#[async_trait]
impl Dial for MachinePort {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match self.client.tunnel(&self.deployment, self.incarnation, self.port).await {
            Ok(tunnel) => Ok(Box::new(tunnel)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn key(&self) -> &str {
        &self.key
    }
}

/// Wakes deployments by wanting them to run.
pub struct WakeByStore {
    pub store: Store,
}

#[async_trait]
impl Waker for WakeByStore {
    async fn wake(&self, deployment: DeploymentId) -> Result<(), WakeError> {
        match self.store.deployment_wake(deployment).await {
            Ok(_) => Ok(()),
            Err(error @ (StoreError::Conflict { .. } | StoreError::NotFound { .. })) => {
                Err(WakeError::Refused(error.to_string()))
            }
            Err(error) => Err(WakeError::Unavailable(error.to_string())),
        }
    }
}
