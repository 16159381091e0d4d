//! Ingress with one static route, for benchmarks:
//! `bench_proxy <port of ingress> <host:port of the upstream> [workers]`, then ask for `Host: bench.localhost`.
//! `BENCH_ROUTES=<n>` adds so many other routes. Prints its address, and runs until it is killed.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ingress::{
    DeploymentRoute, Endpoint, FetchError, FetcherSource, Ingress, IngressConfig, Lease, Routes, WakeError,
    Waker,
};
use model::{DeploymentId, Health, ProjectId, Scheme, Seen, Service, WakePolicy, Wanted};

/// Everything is at one place.
struct Static(SocketAddr);

#[async_trait]
impl FetcherSource for Static {
    async fn fetcher(&self, _: DeploymentId, incarnation: u64, _: &str) -> Result<Lease, FetchError> {
        Ok(Lease::new(Endpoint::Tcp(self.0), incarnation))
    }
}

#[async_trait]
impl Waker for Static {
    async fn wake(&self, _: DeploymentId) -> Result<(), WakeError> {
        Err(WakeError::Refused("nothing sleeps here".to_owned()))
    }
}

fn route(slug: &str) -> Result<DeploymentRoute, Box<dyn std::error::Error>> {
    Ok(DeploymentRoute {
        deployment: DeploymentId::new(),
        project: ProjectId::new(),
        slug: slug.parse()?,
        is_primary: true,
        incarnation: 1,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::Never,
        services: vec![Service { name: "web".parse()?, port: 3000, scheme: Scheme::Http }],
    })
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "a program for people and scripts")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench_proxy <port> <host:port of the upstream> [workers]".into());
    };
    let workers = arguments.next().map_or(Ok(1), |workers| workers.parse())?;
    let others: usize = std::env::var("BENCH_ROUTES").map_or(Ok(0), |routes| routes.parse())?;
    let mut all = vec![route("bench")?];
    for number in 0..others {
        all.push(route(&format!("other-{number}"))?);
    }
    let routes = Arc::new(Routes::new("localhost"));
    routes.replace_all(all, Vec::new());
    let place = Arc::new(Static(upstream.parse()?));
    let config = IngressConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], port.parse()?))],
        workers,
        ..IngressConfig::default()
    };
    let waker = Arc::clone(&place) as Arc<dyn Waker>;
    let ingress = Ingress::bind(config, routes, place, waker, &telemetry::Metrics::new()).await?;
    println!("http://bench.localhost:{} -> {upstream}", ingress.local_addrs()[0].port());
    std::future::pending::<()>().await;
    Ok(())
}
