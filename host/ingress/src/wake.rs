//! Starting what sleeps.

use async_trait::async_trait;
use model::DeploymentId;

/// Starts stopped deployments.
#[async_trait]
pub trait Waker: Send + Sync + 'static {
    /// Starts a stopped deployment; returns when it runs or has failed.
    ///
    /// Ingress calls it once for all requests that wait for one deployment, on the runtime that called
    /// [`Ingress::bind`](crate::Ingress::bind). After `Ok` it waits (within
    /// [`wake_timeout`](crate::IngressConfig::wake_timeout)) until [`Routes`](crate::Routes) say that the
    /// deployment runs, so returning `Ok` as soon as the start is under way works too.
    ///
    /// # Errors
    /// See [`WakeError`].
    async fn wake(&self, deployment: DeploymentId) -> Result<(), WakeError>;
}

/// Why a deployment was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WakeError {
    /// It may not be woken (any more). Requests get 503 `deployment_stopped`.
    #[error("the deployment may not be woken: {0}")]
    Refused(String),
    /// The start was tried and failed. Requests get 503 `deployment_failed`; no other try for some seconds.
    #[error("the deployment did not start: {0}")]
    Failed(String),
    /// Whatever starts deployments is away. Requests get 503 `deployment_starting` with `Retry-After`.
    #[error("deployments can't be started now: {0}")]
    Unavailable(String),
}
