//! A host in memory for one deployment, and the runtime and components that the tests share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapter_runtime::{
    Adapter, AdapterRuntime, Body, DeploymentHost, DeploymentView, HostError, Level, Limits, MachineRef,
    Request, Requirements, Response, RuntimeConfig,
};
use async_trait::async_trait;
use bytes::Bytes;
use model::{DeploymentId, ProjectId, Scheme, Service};

/// What answers the requests of an adapter.
#[async_trait]
pub trait Answers: Send + Sync {
    /// `to` is the grant's name, or the machine's id.
    async fn answer(&self, to: &str, call: &Stamp, request: Request) -> Result<Response, HostError>;
}

/// What a host adds to every request.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub deployment: String,
    pub incarnation: u64,
    pub operation: u64,
}

/// Nobody answers.
pub struct Nobody;

#[async_trait]
impl Answers for Nobody {
    async fn answer(&self, to: &str, _: &Stamp, _: Request) -> Result<Response, HostError> {
        Err(HostError::Denied(format!("no grant {to}")))
    }
}

/// What outlives a call.
#[derive(Default)]
pub struct Kept {
    pub locator: Option<String>,
    pub machine: Option<MachineRef>,
    /// Machines that may be claimed.
    pub pool: Vec<MachineRef>,
    pub wanted: Vec<Requirements>,
    /// Who holds which machine can't be told.
    pub ignorant: bool,
    pub events: Vec<(String, String)>,
    pub log: Vec<(Level, String)>,
}

/// The host's side of one call after the other.
pub struct FakeHost {
    view: DeploymentView,
    operation: u64,
    pub kept: Arc<Mutex<Kept>>,
    answers: Arc<dyn Answers>,
}

impl FakeHost {
    pub fn new(spec: &serde_json::Value, answers: Arc<dyn Answers>) -> Self {
        let id = DeploymentId::new();
        let service = |name: &str, port, scheme| Service { name: name.parse().unwrap(), port, scheme };
        let view = DeploymentView {
            id,
            project_id: ProjectId::new(),
            incarnation: 1,
            spec: spec.to_string(),
            services: vec![service("web", 3000, Scheme::Http), service("rpc", 4000, Scheme::H2c)],
            source: None,
            idempotency_key: format!("{id}-1-1"),
        };
        Self { view, operation: 1, kept: Arc::default(), answers }
    }

    pub fn with_source(mut self, digest: &str) -> Self {
        self.view.source = Some(digest.to_owned());
        self
    }

    pub fn with_pool(self, names: &[&str]) -> Self {
        let machine = |name: &&str| MachineRef { id: format!("mach_{name}"), name: (*name).to_owned() };
        self.kept.lock().unwrap().pool = names.iter().map(machine).collect();
        self
    }

    /// The same deployment in another operation, of the same or the next incarnation.
    pub fn next(&self, incarnation: u64) -> Arc<Self> {
        let operation = self.operation + 1;
        let mut view = self.view.clone();
        view.incarnation = incarnation;
        view.idempotency_key = format!("{}-{incarnation}-{operation}", view.id);
        Arc::new(Self { view, operation, kept: Arc::clone(&self.kept), answers: Arc::clone(&self.answers) })
    }

    fn stamp(&self) -> Stamp {
        let DeploymentView { id, incarnation, .. } = &self.view;
        Stamp { deployment: id.to_string(), incarnation: *incarnation, operation: self.operation }
    }
}

#[async_trait]
impl DeploymentHost for FakeHost {
    fn view(&self) -> &DeploymentView {
        &self.view
    }

    fn locator(&self) -> Option<String> {
        self.kept.lock().unwrap().locator.clone()
    }

    async fn set_locator(&self, locator: Option<String>) -> Result<(), HostError> {
        self.kept.lock().unwrap().locator = locator;
        Ok(())
    }

    async fn held_machine(&self) -> Result<Option<MachineRef>, HostError> {
        let kept = self.kept.lock().unwrap();
        if kept.ignorant {
            return Err(HostError::Unavailable("the database is away".to_owned()));
        }
        Ok(kept.machine.clone())
    }

    async fn acquire_machine(&self, want: Requirements) -> Result<MachineRef, HostError> {
        let mut kept = self.kept.lock().unwrap();
        kept.wanted.push(want);
        if kept.machine.is_none() {
            kept.machine = kept.pool.pop();
        }
        kept.machine.clone().ok_or_else(|| HostError::Exhausted("no machine is ready".to_owned()))
    }

    async fn release_machine(&self) -> Result<(), HostError> {
        let mut kept = self.kept.lock().unwrap();
        let released = kept.machine.take();
        kept.pool.extend(released);
        Ok(())
    }

    async fn send_machine(&self, machine_id: &str, request: Request) -> Result<Response, HostError> {
        self.answers.answer(machine_id, &self.stamp(), request).await
    }

    async fn send_grant(&self, grant: &str, request: Request) -> Result<Response, HostError> {
        self.answers.answer(grant, &self.stamp(), request).await
    }

    fn event(&self, name: &str, data: &str) {
        self.kept.lock().unwrap().events.push((name.to_owned(), data.to_owned()));
    }

    fn log(&self, level: Level, message: &str, _: &[(String, String)]) {
        self.kept.lock().unwrap().log.push((level, message.to_owned()));
    }
}

/// An answer with JSON.
pub fn json(status: u16, body: &impl serde::Serialize) -> Response {
    Response { status, headers: Vec::new(), body: Bytes::from(serde_json::to_vec(body).unwrap()) }
}

/// A request's JSON.
pub fn read<T: serde::de::DeserializeOwned>(request: &Request) -> T {
    match &request.body {
        Body::Inline(bytes) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{} {} has the body {other:?}", request.method, request.path),
    }
}

/// A built component. Fails with what to type where it was not built.
pub fn component(name: &str) -> Vec<u8> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/adapters");
    let folder = std::env::var_os("HYTHE_ADAPTERS_DIR").map_or(built, PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}\nBuild the components first: ./x build --components", path.display());
    })
}

/// Limits that let a test end soon, with room for a busy machine.
pub fn limits() -> Limits {
    Limits { call: Duration::from_secs(20), computing: Duration::from_millis(400), ..Limits::default() }
}

pub fn runtime_with(limits: Limits) -> AdapterRuntime {
    let limits = Limits { calls: 8, calls_per_adapter: 4, ..limits };
    // One folder for all tests of all runs, as on a host: what is compiled is compiled once.
    let cache_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    AdapterRuntime::new(RuntimeConfig { cache_dir: Some(cache_dir), limits, compiler: None }).unwrap()
}

pub async fn load(runtime: &AdapterRuntime, name: &str) -> Arc<Adapter> {
    runtime.load(name, &component(name)).await.unwrap()
}
