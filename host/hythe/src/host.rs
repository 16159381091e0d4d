//! One host: puts the parts together, in order, and takes them apart again.
//!
//! Start: configuration, data directory, database, daemons, adapters, routes, then the listeners; nothing
//! answers before all that it needs is there. Stop: the listeners first, the database last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adapter_runtime::{AdapterRuntime, CompilerCommand, Limits, RuntimeConfig};
use agent_client::HostIdentity;
use anyhow::Context;
use arc_swap::ArcSwapOption;
use artifacts::ArtifactStore;
use control_api::{ControlApi, PublicUrls};
use embedded_postgres::{Durability, EmbeddedPostgres};
use ingress::{Ingress, IngressConfig, Listen, Routes};
use planner::Policy;
use reconciler::{Adapters, Machines, Reconciler, Settings};
use store::{Channel, MasterKey, Store, StoreOptions};
use telemetry::Metrics;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::activity_feed::{self, IdleDeployments};
use crate::adapters;
use crate::config::Config;
use crate::control::{Catalog, Control};
use crate::data_dir::DataDir;
use crate::fetchers::{Fetchers, WakeByStore};
use crate::local_agent::{self, CurrentClient, LocalAgent};
use crate::routes_feed;

/// Changes that a slow follower may be behind before it reads all anew.
const CHANGES: usize = 4_096;
/// How long the API's open requests may last when the host stops.
const API_DRAIN: Duration = Duration::from_secs(5);

/// How to run a host.
pub struct Options {
    pub config: Config,
    pub data_dir: PathBuf,
    /// Whether daemons beside the host, and what they run, end with it.
    pub stop_agents: bool,
}

/// A running host.
pub struct Host {
    pub data_dir: DataDir,
    pub store: Store,
    pub adapters: Arc<Adapters>,
    pub api_address: SocketAddr,
    pub ingress_addresses: Vec<SocketAddr>,
    pub base_domain: String,
    /// Made at the first start: shown once.
    pub new_admin_token: Option<String>,
    pub admin_token_file: PathBuf,
    stop_agents: bool,
    ingress_drain: Duration,
    agents: Vec<LocalAgent>,
    ingress: Ingress,
    postgres: Option<EmbeddedPostgres>,
    stop: CancellationToken,
    reconciler: JoinHandle<()>,
    api: JoinHandle<()>,
    followers: Vec<JoinHandle<()>>,
}

impl Host {
    /// Starts all parts.
    ///
    /// # Errors
    /// The first part that can't start: what, where and what to do. What was started is stopped.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let Options { config, data_dir, stop_agents } = options;
        let data_dir = DataDir::open(&data_dir)?;
        let identity = Arc::new(HostIdentity::load_or_create(&data_dir.folder("identity", true)?)?);
        let artifacts = ArtifactStore::open(data_dir.folder("sources", true)?)?;
        let metrics = Metrics::new();

        let (postgres, url) = database(&config, &data_dir).await?;
        let (store, agents) = tokio::join!(
            open_store(&url, &config, &data_dir),
            start_agents(&config, &data_dir, &identity, stop_agents)
        );
        let store = store?;
        let (agents, clients) = agents?;

        let runtime = AdapterRuntime::new(RuntimeConfig {
            cache_dir: Some(data_dir.folder("compiled", true)?),
            limits: Limits { call: config.deployments.call_timeout, ..Limits::default() },
            compiler: Some(CompilerCommand {
                program: std::env::current_exe()?,
                args: vec![crate::COMPILER_COMMAND.into()],
            }),
        })?;
        let loaded = adapters::load_all(&config, &runtime, &clients).await?;
        store.adapter_mirror(adapters::rows(&loaded)).await?;
        let adapters = Arc::new(Adapters::default());
        adapters.replace(loaded);

        let admin_token_file = data_dir.path().join("admin-token");
        let new_admin_token = match store.api_token_ensure_admin().await? {
            // A start that was cut short lost it, and the database is this host's alone: another is made.
            None if postgres.is_some() && !admin_token_file.exists() => {
                Some(store.api_token_replace("admin").await?)
            }
            token => token,
        };
        if let Some(token) = &new_admin_token {
            crate::files::write_private(&admin_token_file, token.as_bytes())?;
        }

        let stop = CancellationToken::new();
        let machines = Machines::new(store.clone(), identity.clone());
        let reconciler = Reconciler::new(
            store.clone(),
            adapters.clone(),
            machines.clone(),
            artifacts.clone(),
            settings(&config),
        );
        let calls = reconciler.calls();
        let (changes, _) = broadcast::channel(CHANGES);
        let routes = Arc::new(Routes::new(&config.ingress.base_domain));
        let listener = store
            .listen(&[
                Channel::Projects,
                Channel::Deployments,
                Channel::Machines,
                Channel::Events,
                Channel::Hostnames,
                Channel::OldMachines,
            ])
            .await?;
        let idle = Arc::new(IdleDeployments::default());
        routes_feed::load(&store, &routes, &idle).await?;
        let followers = vec![
            tokio::spawn(routes_feed::follow(
                store.clone(),
                routes.clone(),
                idle.clone(),
                machines.clone(),
                reconciler.signal(),
                changes.subscribe(),
            )),
            tokio::spawn(control_api::fan_out(listener, changes.clone())),
            tokio::spawn(activity_feed::follow(store.clone(), routes.clone(), idle)),
        ];

        let api_listener = serve::bind(config.api.listen)?;
        let api_listener = tokio::net::TcpListener::from_std(api_listener)?;
        let api_address = api_listener.local_addr()?;
        let ingress = Ingress::bind(
            ingress_config(&config),
            routes,
            Arc::new(Fetchers { calls: calls.clone() }),
            Arc::new(WakeByStore { store: store.clone() }),
            &metrics,
        )
        .await?;
        let ingress_addresses = ingress.local_addrs().to_vec();
        let api = ControlApi {
            store: store.clone(),
            artifacts,
            control: Arc::new(Control { calls }),
            catalog: Arc::new(Catalog { adapters: adapters.clone() }),
            changes,
            urls: PublicUrls {
                base_domain: config.ingress.base_domain.clone(),
                ingress_scheme: "http".to_owned(),
                ingress_port: ingress_addresses.first().map_or(80, SocketAddr::port),
                join_command: format!("hythe-agent join --host http://{api_address} --token {{token}}"),
            },
            host_certificate_sha256: identity.certificate_sha256().to_owned(),
            metrics: Arc::new(move || metrics.encode()),
            grace: config.deployments.drain_grace,
            shutdown: stop.clone(),
        };
        let api = tokio::spawn(serve_api(api_listener, api, stop.clone()));
        let reconciler = tokio::spawn(reconciler.run(stop.clone()));
        tracing::info!(api = %api_address, ingress = ?ingress_addresses, "the host is ready");
        Ok(Self {
            data_dir,
            store,
            adapters,
            api_address,
            ingress_addresses,
            base_domain: config.ingress.base_domain,
            new_admin_token,
            admin_token_file,
            stop_agents,
            ingress_drain: config.ingress.drain,
            agents,
            ingress,
            postgres,
            stop,
            reconciler,
            api,
            followers,
        })
    }

    /// Stops all parts, the listeners first.
    pub async fn stop(self) {
        tracing::info!("the host is stopping");
        self.stop.cancel();
        let drain = self.ingress.drain(self.ingress_drain);
        let api = tokio::time::timeout(API_DRAIN, self.api);
        let (all_ended, _, _) = tokio::join!(drain, api, self.reconciler);
        if !all_ended {
            tracing::warn!("open requests were cut: they did not end in time");
        }
        for follower in self.followers {
            follower.abort();
        }
        if self.stop_agents {
            futures_util::future::join_all(self.agents.into_iter().map(LocalAgent::stop)).await;
        }
        self.store.close().await;
        if let Some(postgres) = self.postgres
            && let Err(error) = postgres.stop().await
        {
            tracing::error!(%error, "the database did not stop in order; it recovers at its next start");
        }
    }
}

async fn serve_api(listener: tokio::net::TcpListener, api: ControlApi, stop: CancellationToken) {
    if let Err(error) = api.serve(listener, stop).await {
        tracing::error!(%error, "the control API has ended");
    }
}

/// The private cluster where no URL is given, else none; and the URL.
async fn database(config: &Config, data_dir: &DataDir) -> anyhow::Result<(Option<EmbeddedPostgres>, String)> {
    let from_environment = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    if let Some(url) = from_environment.or_else(|| config.database.url.clone()) {
        return Ok((None, url));
    }
    let postgres = EmbeddedPostgres::start(embedded_postgres::Options {
        data_dir: data_dir.path().join("postgres"),
        binaries: config.database.binaries.clone(),
        cache_dir: postgres_cache(),
        durability: Durability::Durable,
    })
    .await
    .context("the embedded Postgres did not start")?;
    let url = postgres.url();
    Ok((Some(postgres), url))
}

/// Where `./x` unpacks a Postgres runtime on machines that have none.
fn postgres_cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("HYTHE_POSTGRES_CACHE") {
        return PathBuf::from(cache);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/hythe");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(|| PathBuf::from(".")).join("hythe")
}

async fn open_store(url: &str, config: &Config, data_dir: &DataDir) -> anyhow::Result<Store> {
    let options = StoreOptions { drain_grace: config.deployments.drain_grace, ..StoreOptions::default() };
    let store = Store::connect(url, options).await.context("the database can't be used")?;
    store.migrate().await.context("the database's schema can't be brought up to date")?;
    let master_key = MasterKey::from_environment_or_file(data_dir.path())?;
    Ok(store.with_master_key(master_key))
}

type Clients = BTreeMap<String, CurrentClient>;

async fn start_agents(
    config: &Config,
    data_dir: &DataDir,
    identity: &Arc<HostIdentity>,
    stop_agents: bool,
) -> anyhow::Result<(Vec<LocalAgent>, Clients)> {
    let mut agents = Vec::new();
    let mut clients = Clients::new();
    data_dir.folder("agents", false)?;
    for (name, settings) in &config.agents {
        let folder = data_dir.folder(&format!("agents/{name}"), false)?;
        let registration = local_agent::provision(&folder, identity)?;
        let current: CurrentClient = Arc::new(ArcSwapOption::empty());
        clients.insert(name.clone(), current.clone());
        let options = local_agent::Options {
            name: name.clone(),
            program: agent_program()?,
            data_dir: folder.clone(),
            listen: settings.listen.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string()),
            workload_user: settings.workload_user.clone().unwrap_or_else(|| "auto".to_owned()),
            stop_workloads_on_exit: stop_agents,
        };
        let identity = identity.clone();
        let on_listening = move |listening: local_agent::Listening| match local_agent::client(
            &folder,
            &registration,
            &identity,
            &listening,
        ) {
            Ok(client) => current.store(Some(Arc::new(client))),
            Err(error) => tracing::error!(folder = %folder.display(), "a daemon can't be reached: {error:#}"),
        };
        agents.push(LocalAgent::start(options, on_listening).await?);
    }
    Ok((agents, clients))
}

/// `hythe-agent`, beside this program.
///
/// # Errors
/// Where this program's own file can't be found.
pub fn agent_program() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("HYTHE_AGENT") {
        return Ok(PathBuf::from(program));
    }
    let program = std::env::current_exe().context("this program's own file can't be found")?;
    Ok(program.parent().unwrap_or(Path::new(".")).join("hythe-agent"))
}

fn settings(config: &Config) -> Settings {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Settings {
        lease: config.deployments.lease,
        stop_grace: config.deployments.stop_grace,
        concurrency: config.deployments.concurrency,
        policy: Policy {
            inspect_every_ms: ms(config.deployments.inspect_every),
            health_every_ms: ms(config.deployments.health_every),
            ..Policy::default()
        },
    }
}

fn ingress_config(config: &Config) -> IngressConfig {
    let defaults = IngressConfig::default();
    IngressConfig {
        listen: config.ingress.listen.iter().copied().map(Listen::from).collect(),
        base_domain: config.ingress.base_domain.clone(),
        workers: config.ingress.workers.unwrap_or(defaults.workers),
        wake_timeout: config.ingress.wake_timeout,
        wake_queue: config.ingress.wake_queue,
        quiet_agents: config.ingress.quiet_agents.clone().unwrap_or(defaults.quiet_agents),
        connect_timeout: config.ingress.connect_timeout,
        ..defaults
    }
}
