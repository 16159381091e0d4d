//! The exported functions: they read the deployment, reach the daemon and leave the rest to `lifecycle`.

use std::marker::PhantomData;

use serde_json::Value;

use crate::bindings::exports::hythe::deployment::control::{Command, Execution, Guest as Control};
use crate::bindings::exports::hythe::deployment::health_check::{Guest as HealthCheck, Health};
use crate::bindings::exports::hythe::deployment::logs::{Guest as Logs, Source, Tail};
use crate::bindings::exports::hythe::deployment::project_deployment::{
    Descriptor, Guest as ProjectDeployment,
};
use crate::host::Deployment;
use crate::lifecycle::{self, Daemon, View};
use crate::spec;
use crate::types::{Error, Fetcher, Request, Response, Status, Upstream};

/// What the locator holds: that a start was begun, in the first version of this crate's state.
const LOCATOR: &str = r#"{"v":1}"#;

/// How a runtime's daemon is reached.
pub trait Runtime: Sized {
    /// What deployments name in `runtimeType`.
    const TYPE: &'static str;
    /// One sentence.
    const SUMMARY: &'static str;
    /// Grants it needs: name, what for.
    const GRANTS: &'static [(&'static str, &'static str)];

    /// A field of the spec that is the runtime's own: its name and its JSON Schema.
    fn own_field() -> Option<(&'static str, Value)>;
    /// The daemon that runs the deployment; none where there can be none.
    ///
    /// # Errors
    /// As the host's. Not to know is an error, never none.
    fn reach(deployment: &Deployment) -> Result<Option<Self>, Error>;
    /// A daemon to start it on: the one reached, or a new one. `own` is the spec's field of
    /// [`own_field`](Self::own_field).
    ///
    /// # Errors
    /// As the host's.
    fn claim(deployment: &Deployment, own: Option<Value>) -> Result<Self, Error>;
    /// Gives back what was claimed. Called only when the daemon has nothing of the deployment left.
    ///
    /// # Errors
    /// As the host's.
    fn release(deployment: &Deployment) -> Result<(), Error>;
    /// A request to the daemon.
    ///
    /// # Errors
    /// As the host's.
    fn send(&self, request: &Request) -> Result<Response, Error>;
    /// A local port of where the daemon is.
    fn port(&self, port: u16) -> Upstream;
    /// The daemon itself.
    fn daemon(&self) -> Upstream;
}

/// The adapter of a runtime: `type Adapter = Driver<Mine>;` and `daemon_driver::export!(Adapter)`.
pub struct Driver<R>(PhantomData<R>);

/// What `lifecycle` sees of a runtime.
struct Link<R>(R);

impl<R: Runtime> Daemon for Link<R> {
    fn send(&self, request: &Request) -> Result<Response, Error> {
        self.0.send(request)
    }

    fn port(&self, port: u16) -> Upstream {
        self.0.port(port)
    }

    fn daemon(&self) -> Upstream {
        self.0.daemon()
    }
}

fn view(deployment: &Deployment) -> View {
    View {
        id: deployment.id(),
        incarnation: deployment.incarnation(),
        services: deployment.services().into_iter().map(|s| (s.name, s.port, s.scheme)).collect(),
        begun: deployment.locator().is_some(),
    }
}

fn reach<R: Runtime>(deployment: &Deployment) -> Result<Link<R>, Error> {
    R::reach(deployment)?.map(Link).ok_or(Error::NotFound)
}

/// What starting needs: the daemon, and the workload as it is told to it.
fn prepare<R: Runtime>(deployment: &Deployment) -> Result<(Link<R>, agent_api::WorkloadSpec), Error> {
    let own_name = R::own_field().map(|(name, _)| name);
    let (mut workload, own) = spec::read(&deployment.spec(), own_name)?;
    workload.source = deployment.source();
    workload.services = deployment
        .services()
        .into_iter()
        .map(|service| agent_api::WorkloadService { name: service.name, port: service.port })
        .collect();
    let claimed = R::claim(deployment, own)?;
    // Before the daemon is told: a crash after this is a start that may have begun.
    if deployment.locator().is_none() {
        deployment.set_locator(Some(LOCATOR))?;
    }
    Ok((Link(claimed), workload))
}

impl<R: Runtime> ProjectDeployment for Driver<R> {
    fn describe() -> Descriptor {
        Descriptor {
            runtime_type: R::TYPE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: R::SUMMARY.to_owned(),
            spec_schema: spec::schema(R::own_field()).to_string(),
            grants: R::GRANTS.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect(),
            extensions: Vec::new(),
        }
    }

    fn start(d: &Deployment) -> Result<Status, Error> {
        let (daemon, workload) = prepare::<R>(d)?;
        lifecycle::start(&daemon, &view(d), &workload)
    }

    fn stop(d: &Deployment, grace_ms: u32) -> Result<Status, Error> {
        match R::reach(d)?.map(Link) {
            Some(daemon) => lifecycle::stop(&daemon, &view(d), grace_ms),
            None => Ok(lifecycle::stopped("It holds nothing that could run.")),
        }
    }

    fn restart(d: &Deployment, grace_ms: u32) -> Result<Status, Error> {
        let (daemon, workload) = prepare::<R>(d)?;
        lifecycle::restart(&daemon, &view(d), &workload, grace_ms)
    }

    fn destroy(d: &Deployment) -> Result<Status, Error> {
        if let Some(daemon) = R::reach(d)?.map(Link)
            && let Some(unfinished) = lifecycle::destroy(&daemon, &view(d))?
        {
            return Ok(unfinished);
        }
        R::release(d)?;
        Ok(lifecycle::destroyed())
    }

    fn inspect(d: &Deployment) -> Result<Status, Error> {
        let view = view(d);
        match R::reach(d)?.map(Link) {
            Some(daemon) => lifecycle::inspect(&daemon, &view),
            None => Ok(lifecycle::absent(&view)),
        }
    }

    fn get_fetcher(d: &Deployment, service: String) -> Result<Fetcher, Error> {
        lifecycle::get_fetcher(&reach::<R>(d)?, &view(d), &service)
    }
}

impl<R: Runtime> HealthCheck for Driver<R> {
    fn check_health(d: &Deployment) -> Result<Health, Error> {
        lifecycle::check_health(&reach::<R>(d)?, &view(d))
    }
}

impl<R: Runtime> Control for Driver<R> {
    fn exec(d: &Deployment, execution_id: String, command: Command) -> Result<Execution, Error> {
        lifecycle::exec(&reach::<R>(d)?, &view(d), &execution_id, command)
    }

    fn attach(d: &Deployment, execution_id: String, cursor: u64) -> Result<Execution, Error> {
        Ok(lifecycle::attach(&reach::<R>(d)?, &view(d), &execution_id, cursor))
    }
}

impl<R: Runtime> Logs for Driver<R> {
    fn read_logs(d: &Deployment, tail: Tail) -> Result<Source, Error> {
        Ok(lifecycle::read_logs(&reach::<R>(d)?, &view(d), &tail))
    }
}
