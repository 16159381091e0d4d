//! Ingress without a host, for tests and benchmarks: no database, its routes from one JSON file, and an adapter
//! that decides about all requests where the file names one.
//!
//! `stand <file>` (and `t1-stand <file>`, with adapters), where the file holds a [`Stand`]. Prints one JSON line with the addresses when it
//! listens. SIGHUP reads routes again, SIGTERM drains.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ingress::{
    DeploymentRoute, Endpoint, FetchError, FetcherSource, Ingress, IngressConfig, Lease, Listen, Routed,
    RouterFactory, Routes, TrustedProxies, WakeError, Waker,
};
use model::{DeploymentId, Health, ProjectId, Scheme, Seen, Service, WakePolicy, Wanted};
use parking_lot::RwLock;
use serde::Deserialize;
use serve::tls::{CertificateFiles, Tls, TlsSettings};
use tokio::signal::unix::{SignalKind, signal};

pub type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stand {
    #[serde(default)]
    listen: Vec<SocketAddr>,
    /// Over TLS, with [`certificates`](Self::certificates).
    #[serde(default)]
    tls_listen: Vec<SocketAddr>,
    /// Cleartext behind a proxy that speaks the PROXY protocol.
    #[serde(default)]
    proxy_listen: Vec<SocketAddr>,
    /// The first is shown to clients that name no host.
    #[serde(default)]
    certificates: Vec<Pair>,
    /// Sends cleartext to the first of `tlsListen`.
    #[serde(default)]
    redirect_to_https: bool,
    #[serde(default = "base_domain")]
    base_domain: String,
    #[serde(default = "one")]
    workers: usize,
    routes: Vec<Route>,
    /// So many more, `other-0` and on, that lead to the first route's place.
    #[serde(default)]
    other_routes: usize,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    #[serde(default)]
    limits: Limits,
    /// A component that exports `http-routing`: every request is asked about.
    #[serde(default)]
    adapter: Option<PathBuf>,
    /// What its fetchers would give it as settings.
    #[serde(default)]
    adapter_config: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Route {
    slug: String,
    upstream: SocketAddr,
    #[serde(default)]
    scheme: Option<Scheme>,
}

/// Fields of [`IngressConfig`]; time-outs in milliseconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Limits {
    header_timeout: Option<u64>,
    body_timeout: Option<u64>,
    write_timeout: Option<u64>,
    response_timeout: Option<u64>,
    keep_alive_timeout: Option<u64>,
    upgrade_timeout: Option<u64>,
    connect_timeout: Option<u64>,
    connect_retries: Option<u32>,
    max_header_bytes: Option<usize>,
    max_connections: Option<usize>,
    pool_idle_max: Option<usize>,
    max_requests: Option<usize>,
    max_deployment_requests: Option<usize>,
    max_streams: Option<u32>,
}

/// What the adapter is called.
pub const ADAPTER: &str = "adapter";

fn base_domain() -> String {
    "localhost".to_owned()
}

fn one() -> usize {
    1
}

/// Where deployments are.
#[derive(Default)]
struct Places {
    by_id: RwLock<HashMap<DeploymentId, (SocketAddr, Scheme)>>,
    /// What all leases say of their requests; the deployment's id is still missing.
    routed: Option<Routed>,
}

#[async_trait]
impl FetcherSource for Places {
    async fn fetcher(&self, id: DeploymentId, incarnation: u64, _: &str) -> Result<Lease, FetchError> {
        let (address, scheme) = *self.by_id.read().get(&id).ok_or(FetchError::NotFound)?;
        let mut lease = Lease::new(Endpoint::Tcp(address), incarnation);
        lease.scheme = scheme;
        lease.routed =
            self.routed.clone().map(|routed| Routed { deployment: id.to_string().into(), ..routed });
        Ok(lease)
    }
}

#[async_trait]
impl Waker for Places {
    async fn wake(&self, _: DeploymentId) -> Result<(), WakeError> {
        Err(WakeError::Refused("nothing sleeps here".to_owned()))
    }
}

fn route(slug: &str) -> Result<DeploymentRoute, Failure> {
    Ok(DeploymentRoute {
        deployment: DeploymentId::new(),
        project: ProjectId::new(),
        slug: slug.parse()?,
        is_primary: true,
        incarnation: 1,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::None,
        services: vec![Service { name: "web".parse()?, port: 3000, scheme: Scheme::Http }],
    })
}

/// Brings the table to what the file says; what is in it already stays as it is.
fn apply(
    stand: &Stand,
    known: &mut HashMap<String, DeploymentRoute>,
    routes: &Routes,
    places: &Places,
) -> Result<(), Failure> {
    let first = stand.routes.first().ok_or("routes: give at least one")?;
    let place = |route: &Route| (route.upstream, route.scheme.unwrap_or(Scheme::Http));
    let mut wanted: Vec<(String, (SocketAddr, Scheme))> =
        stand.routes.iter().map(|route| (route.slug.clone(), place(route))).collect();
    wanted.extend((0..stand.other_routes).map(|number| (format!("other-{number}"), place(first))));
    let mut next = HashMap::with_capacity(wanted.len());
    let mut by_id = HashMap::with_capacity(wanted.len());
    for (slug, place) in wanted {
        let mut entry = match known.remove(&slug) {
            Some(entry) => entry,
            None => route(&slug)?,
        };
        if places.by_id.read().get(&entry.deployment).is_some_and(|before| *before != place) {
            entry.incarnation += 1;
        }
        by_id.insert(entry.deployment, place);
        next.insert(slug, entry);
    }
    *places.by_id.write() = by_id;
    routes.replace_all(next.values().cloned().collect(), Vec::new());
    *known = next;
    Ok(())
}

fn read(path: &str) -> Result<Stand, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?)
}

fn tls(stand: &Stand) -> Result<Option<Arc<Tls>>, Failure> {
    if stand.tls_listen.is_empty() {
        return Ok(None);
    }
    let files = stand.certificates.iter();
    let certificates = files
        .enumerate()
        .map(|(number, Pair { certificate, key })| CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            default: number == 0,
        })
        .collect();
    Ok(Some(Tls::new(TlsSettings { certificates, ..TlsSettings::default() })?))
}

fn config(stand: &Stand, tls: Option<Arc<Tls>>) -> Result<IngressConfig, Failure> {
    let defaults = IngressConfig::default();
    let limits = &stand.limits;
    let time = |given: Option<u64>, default| given.map_or(default, Duration::from_millis);
    let redirect = stand.tls_listen.first().map(SocketAddr::port).filter(|_| stand.redirect_to_https);
    let clear =
        stand.listen.iter().map(|address| Listen { redirect_to_https: redirect, ..Listen::from(*address) });
    let proxied =
        stand.proxy_listen.iter().map(|address| Listen { proxy_protocol: true, ..Listen::from(*address) });
    let secured =
        stand.tls_listen.iter().map(|address| Listen { tls: tls.clone(), ..Listen::from(*address) });
    Ok(IngressConfig {
        listen: clear.chain(proxied).chain(secured).collect(),
        base_domain: stand.base_domain.clone(),
        workers: stand.workers,
        trusted_proxies: TrustedProxies::parse(&stand.trusted_proxies)?,
        header_timeout: time(limits.header_timeout, defaults.header_timeout),
        body_timeout: time(limits.body_timeout, defaults.body_timeout),
        write_timeout: time(limits.write_timeout, defaults.write_timeout),
        response_timeout: time(limits.response_timeout, defaults.response_timeout),
        keep_alive_timeout: time(limits.keep_alive_timeout, defaults.keep_alive_timeout),
        upgrade_timeout: time(limits.upgrade_timeout, defaults.upgrade_timeout),
        connect_timeout: time(limits.connect_timeout, defaults.connect_timeout),
        connect_retries: limits.connect_retries.unwrap_or(defaults.connect_retries),
        max_header_bytes: limits.max_header_bytes.unwrap_or(defaults.max_header_bytes),
        max_connections: limits.max_connections.unwrap_or(defaults.max_connections),
        pool_idle_max: limits.pool_idle_max.unwrap_or(defaults.pool_idle_max),
        max_requests: limits.max_requests.unwrap_or(defaults.max_requests),
        max_deployment_requests: limits.max_deployment_requests.unwrap_or(defaults.max_deployment_requests),
        max_streams: limits.max_streams.unwrap_or(defaults.max_streams),
        ..defaults
    })
}

/// The program. `load` makes of an adapter's file, read, what decides about requests.
///
/// # Errors
/// What is wrong with the file, or with what it names.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]
pub async fn run(
    load: impl AsyncFnOnce(Vec<u8>) -> Result<Arc<dyn RouterFactory>, Failure>,
) -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("usage: stand <file.json>")?;
    let stand = read(&path)?;
    let routes = Arc::new(Routes::new(&stand.base_domain));
    let (mut routers, mut routed) = (None, None);
    if let Some(file) = &stand.adapter {
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        routers = Some(load(bytes).await?);
        let config = stand.adapter_config.to_string().into();
        routed =
            Some(Routed { adapter: ADAPTER.into(), deployment: "".into(), service: "web".into(), config });
    }
    let places = Arc::new(Places { routed, ..Places::default() });
    let mut known = HashMap::new();
    apply(&stand, &mut known, &routes, &places)?;
    let waker = Arc::clone(&places) as Arc<dyn Waker>;
    let fetchers = Arc::clone(&places) as Arc<dyn FetcherSource>;
    let metrics = telemetry::Metrics::new();
    let tls = tls(&stand)?;
    let config = config(&stand, tls.clone())?;
    let ingress = Ingress::bind(config, Arc::clone(&routes), fetchers, waker, routers, &metrics).await?;
    let (clear, rest) = ingress.local_addrs().split_at(stand.listen.len());
    let (proxied, secured) = rest.split_at(stand.proxy_listen.len());
    println!("{}", serde_json::json!({ "listen": clear, "proxyListen": proxied, "tlsListen": secured }));
    drop(stand);
    let (mut hangup, mut terminate) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                if let Some(tls) = &tls {
                    tls.reload().log();
                }
                let applied = read(&path).and_then(|stand| apply(&stand, &mut known, &routes, &places));
                if let Err(error) = applied {
                    eprintln!("the old routes stay: {error}");
                }
            }
            _ = terminate.recv() => break,
        }
    }
    ingress.drain(Duration::from_secs(10)).await;
    Ok(())
}
