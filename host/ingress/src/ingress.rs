//! Starting and ending it all.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use serve::{Drain, WorkerThread};
use telemetry::Metrics;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{IngressConfig, IngressError};
use crate::host::CanonicalHost;
use crate::lease::FetcherSource;
use crate::metrics::{Figures, Stats};
use crate::route::Routes;
use crate::router::{NoRouter, RouterFactory};
use crate::wake::Waker;
use crate::worker::{self, Shared};

/// A running ingress. Dropping it without [`drain`](Self::drain) ends it at once.
pub struct Ingress {
    local_addrs: Vec<SocketAddr>,
    drain: Drain,
    cut: DropGuard,
    workers: Vec<WorkerThread>,
    /// All sockets that the workers accept from.
    listeners: Vec<TcpListener>,
}

/// What listeners of ingress are called when they are handed to another process.
const LISTENERS: &str = "ingress";

impl Ingress {
    /// Takes the ports and starts the workers. `fetchers` and `waker` are called on the runtime that
    /// calls this, `routers` on the workers' threads; None where no lease is [`Lease::routed`](crate::Lease).
    ///
    /// # Errors
    /// Settings that can't be; a port that can't be had. Nothing is left running then.
    pub async fn bind(
        config: IngressConfig,
        routes: Arc<Routes>,
        fetchers: Arc<dyn FetcherSource>,
        waker: Arc<dyn Waker>,
        routers: Option<Arc<dyn RouterFactory>>,
        metrics: &Metrics,
    ) -> Result<Self, IngressError> {
        check(&config)?;
        let mut local_addrs = Vec::with_capacity(config.listen.len());
        let mut listeners = Vec::new();
        let mut by_worker: Vec<Vec<_>> = (0..config.workers).map(|_| Vec::new()).collect();
        for listen in &config.listen {
            let opened =
                serve::inherit::listen(&config.inherited, LISTENERS, listen.address, config.workers)?;
            local_addrs.push(opened[0].local_addr().map_err(IngressError::Address)?);
            for listener in &opened {
                listeners.push(listener.try_clone().map_err(IngressError::Address)?);
            }
            let spread = serve::inherit::spread(opened, config.workers).map_err(IngressError::Address)?;
            for (worker, share) in by_worker.iter_mut().zip(spread) {
                worker.extend(share.into_iter().map(|listener| (listen.clone(), listener)));
            }
        }
        let drain = Drain::new();
        let cut = CancellationToken::new();
        let stats = Arc::new(Stats::default());
        let most = config.metrics_deployments;
        let shared = Arc::new(Shared {
            config,
            routes: Arc::clone(&routes),
            fetchers,
            waker,
            routers: routers.unwrap_or_else(|| Arc::new(NoRouter)),
            control: Handle::current(),
            stats: Arc::clone(&stats),
            draining: drain.watch(),
            cut: cut.clone(),
        });
        let mut ingress = Self { local_addrs, drain, cut: cut.drop_guard(), workers: Vec::new(), listeners };
        for (number, listeners) in by_worker.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let worker = WorkerThread::spawn(format!("ingress-{number}"), || worker::run(shared, listeners))?;
            ingress.workers.push(worker);
        }
        metrics.register_collector(Box::new(Figures { stats, routes, most }));
        tracing::info!(addresses = ?ingress.local_addrs, workers = ingress.workers.len(), "ingress is listening");
        Ok(ingress)
    }

    /// Where it listens, in the order of [`IngressConfig::listen`]; ports that were 0 are real here.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Adds its listening sockets to what the next process gets, under the name `ingress`. Both accept from
    /// them until this one drains.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn hand_over(&self, to: &mut serve::inherit::HandOver) -> std::io::Result<()> {
        self.listeners.iter().try_for_each(|listener| to.add(LISTENERS, listener))
    }

    /// Stops accepting, lets requests, streams and tunnels come to their end, and cuts what is left after
    /// `grace`. Whether all came to their end.
    pub async fn drain(self, grace: Duration) -> bool {
        let Self { drain, cut, workers, listeners, .. } = self;
        drop(listeners);
        let all = drain.drain(grace).await;
        drop(cut);
        for worker in workers {
            if !worker.join().await {
                tracing::error!("a worker of ingress panicked");
            }
        }
        all
    }
}

fn check(config: &IngressConfig) -> Result<(), IngressError> {
    let base = &config.base_domain;
    let canonical =
        CanonicalHost::parse(base.as_bytes()).map_err(|_| IngressError::BaseDomain(base.clone()))?;
    if canonical.as_str() != base {
        return Err(IngressError::BaseDomain(base.clone()));
    }
    if config.listen.is_empty() {
        return Err(IngressError::NoListener);
    }
    for (name, value, least) in [
        ("workers", config.workers, 1),
        ("max_header_bytes", config.max_header_bytes, 8192),
        ("max_connections", config.max_connections, 1),
    ] {
        if value < least {
            return Err(IngressError::TooSmall { name, value, least });
        }
    }
    Ok(())
}
