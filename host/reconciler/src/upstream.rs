//! From what an adapter points to, to where connections go.

use adapter_runtime::{HostError, Upstream};
use agent_client::AgentClient;
use grants::{Granted, Grants};
use model::DeploymentId;

use crate::executor::Context;

/// Where users' connections go.
#[derive(Clone)]
pub enum ResolvedUpstream {
    /// A place of a grant, dialled directly.
    Granted(Granted),
    /// A local port of the deployment's machine, through its daemon.
    Tunnel { client: AgentClient, port: u16 },
}

/// Resolves what a fetcher names.
pub(crate) async fn resolve(
    context: &Context,
    grants: &Grants,
    deployment: DeploymentId,
    upstream: &Upstream,
) -> Result<ResolvedUpstream, HostError> {
    match upstream {
        Upstream::Machine(port) => {
            Ok(ResolvedUpstream::Tunnel { client: machine_client(context, deployment).await?, port: *port })
        }
        Upstream::Granted(place) => Ok(ResolvedUpstream::Granted(grants.resolve(place).await?)),
        Upstream::Agent | Upstream::Deployment(_) | Upstream::Component(_) => Err(HostError::Unsupported),
    }
}

/// The daemon of the machine that the deployment holds.
pub(crate) async fn machine_client(
    context: &Context,
    deployment: DeploymentId,
) -> Result<AgentClient, HostError> {
    let unavailable = |error: store::StoreError| {
        tracing::debug!(%error, "a machine can't be looked up");
        HostError::Unavailable("the deployment's machine can't be looked up now".to_owned())
    };
    let machine = context.store.machine_of_deployment(deployment).await.map_err(unavailable)?;
    let machine = machine.ok_or(HostError::NotFound)?;
    context.machines.client(machine.id).await.map_err(unavailable)
}
