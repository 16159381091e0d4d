//! What the control API is made of.

use std::sync::Arc;
use std::time::Duration;

use api_types::{HostKind, ServiceUrl};
use artifacts::ArtifactStore;
use model::{DeploymentId, HostName, HostTarget, ServiceName, ServiceSelector, Slug};
use store::{Change, ChangeListener, Store};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::boundary::{AdapterCatalog, DeploymentControl};

/// Gives the text of `GET /v1/metrics` (OpenMetrics, or Prometheus' own format).
pub type MetricsRenderer = Arc<dyn Fn() -> String + Send + Sync>;

/// All that the control API needs. [`router`](Self::router) makes it ready to be served.
#[derive(Clone)]
pub struct ControlApi {
    /// Must have its master key: machines register here.
    pub store: Store,
    pub artifacts: ArtifactStore,
    pub control: Arc<dyn DeploymentControl>,
    pub catalog: Arc<dyn AdapterCatalog>,
    /// All changes of the database ([`fan_out`]): what waits and event streams wake up by.
    pub changes: broadcast::Sender<Change>,
    pub urls: PublicUrls,
    /// Lower-case hex SHA-256 of the certificate (DER) that the host shows to machines' daemons.
    pub host_certificate_sha256: String,
    pub metrics: MetricsRenderer,
    /// How long a primary deployment that was replaced stays reachable under its own host.
    pub grace: Duration,
    /// Ends what is held open (streams, waits), so that the server can drain.
    pub shutdown: CancellationToken,
}

/// How the world reaches the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrls {
    /// What deployments' hosts end with: `localhost`.
    pub base_domain: String,
    /// `http` or `https`, as a browser uses it.
    pub ingress_scheme: String,
    /// As a browser uses it.
    pub ingress_port: u16,
    /// What a person pastes into a shell of a machine to make it join; `{token}` stands for the one-time
    /// token. `hythe-agent join --host http://127.0.0.1:8090 --token {token}`
    pub join_command: String,
}

impl PublicUrls {
    fn url(&self, host: &str) -> String {
        let scheme = &self.ingress_scheme;
        match (scheme.as_str(), self.ingress_port) {
            ("http", 80) | ("https", 443) => format!("{scheme}://{host}/"),
            (_, port) => format!("{scheme}://{host}:{port}/"),
        }
    }

    fn service_url(
        &self,
        kind: HostKind,
        target: HostTarget,
        service: Option<&ServiceName>,
        is_default: bool,
    ) -> Option<ServiceUrl> {
        let selector = service.filter(|_| !is_default).map(|name| ServiceSelector::Name(name.clone()));
        // Names that don't fit were refused when they were made.
        let label = HostName { service: selector, target }.label().ok()?;
        let host = format!("{label}.{}", self.base_domain);
        Some(ServiceUrl { service: service.cloned(), is_default, kind, url: self.url(&host), host })
    }

    /// The host that follows the project's primary deployment.
    pub(crate) fn of_project(&self, slug: &Slug) -> Vec<ServiceUrl> {
        self.service_url(HostKind::Project, HostTarget::Project(slug.clone()), None, true)
            .into_iter()
            .collect()
    }

    /// Where the services of a deployment answer: under the project's host where it is primary, and under its own.
    pub(crate) fn of_deployment<'a>(
        &self,
        slug: &Slug,
        id: DeploymentId,
        is_primary: bool,
        services: impl Iterator<Item = &'a ServiceName> + Clone,
    ) -> Vec<ServiceUrl> {
        let targets = [
            is_primary.then(|| (HostKind::Project, HostTarget::Project(slug.clone()))),
            Some((HostKind::Deployment, HostTarget::Deployment(id))),
        ];
        let targets = targets.into_iter().flatten();
        targets
            .flat_map(|(kind, target)| {
                services.clone().enumerate().filter_map(move |(position, service)| {
                    self.service_url(kind, target.clone(), Some(service), position == 0)
                })
            })
            .collect()
    }
}

/// Hands the database's changes to all who wait, for ever. Run once for each host.
pub async fn fan_out(mut listener: ChangeListener, changes: broadcast::Sender<Change>) {
    loop {
        // Nobody waits: that is no fault.
        let _ = changes.send(listener.next().await);
    }
}
