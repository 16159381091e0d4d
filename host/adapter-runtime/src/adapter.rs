//! A loaded adapter and the calls to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonschema::Validator;
use model::Phase;
use tokio::sync::Semaphore;
use wasmtime::component::{Instance, InstancePre, Resource};
use wasmtime::{PoolConcurrencyLimitError, Store, UpdateDeadline};
use wit_bindings::{DeploymentHandle, control, health_check, logs, project_deployment, types as wit};

use crate::convert;
use crate::error::{CallCause, CallError, LoadCause};
use crate::host::DeploymentHost;
use crate::limits::Limits;
use crate::routing::RoutingComponent;
use crate::schema::{self, Descriptor, SpecViolation};
use crate::state::CallState;
use crate::types::{Command, Execution, Fetcher, Health, LogSource, Status, Tail};
use crate::world::{SERVED, World};

/// What all adapters of a runtime share.
pub(crate) struct Shared {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) limits: Arc<Limits>,
    /// One permit a call: the pool never runs out.
    pub(crate) calls: Semaphore,
}

/// Where a component's functions are.
struct Interfaces {
    project: project_deployment::GuestIndices,
    health: Option<health_check::GuestIndices>,
    control: Option<control::GuestIndices>,
    logs: Option<logs::GuestIndices>,
}

/// A component that was checked, compiled and described.
///
/// Each call runs on a fresh instance, bounded by [`Limits`], and may be dropped at any await.
pub struct Adapter {
    name: Arc<str>,
    sha256: String,
    descriptor: Descriptor,
    validator: Validator,
    exports: Vec<&'static str>,
    routing: Option<RoutingComponent>,
    callee: Callee,
}

/// Whether a benchmark makes an instance for each call.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    Fresh,
    Warm,
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter")
            .field("name", &self.name)
            .field("sha256", &self.sha256)
            .field("exports", &self.exports)
            .finish_non_exhaustive()
    }
}

impl Adapter {
    /// Describes a component that was checked and compiled.
    pub(crate) async fn new(
        name: &str,
        sha256: String,
        world: World,
        pre: InstancePre<CallState>,
        routing: Option<RoutingComponent>,
        shared: Arc<Shared>,
    ) -> Result<Self, LoadCause> {
        let name: Arc<str> = name.into();
        let interfaces = Interfaces::find(&pre, &world)
            .map_err(|error| LoadCause::Shape { served: SERVED.to_owned(), problem: format!("{error:#}") })?;
        let calls = Semaphore::new(shared.limits.calls_per_adapter as usize);
        let callee = Callee { name: Arc::clone(&name), pre, interfaces, calls, shared };
        let first = callee.describe().await?;
        let second = callee.describe().await?;
        if format!("{first:?}") != format!("{second:?}") {
            return Err(LoadCause::Unsteady);
        }
        let (descriptor, validator) = schema::descriptor(first)?;
        Ok(Self { name, sha256, descriptor, validator, exports: world.exports, routing, callee })
    }

    /// The name that it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The component's digest, lower-case hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The optional interfaces that it has: of `health-check`, `control`, `logs`, `http-routing`.
    #[must_use]
    pub fn exports(&self) -> &[&'static str] {
        &self.exports
    }

    /// What decides about requests; none without `http-routing`.
    #[must_use]
    pub fn routing(&self) -> Option<&RoutingComponent> {
        self.routing.as_ref()
    }

    /// Checks a deployment's spec against the adapter's schema.
    ///
    /// # Errors
    /// All that is wrong (at most 32), each with where it is.
    pub fn validate_spec(&self, spec: &serde_json::Value) -> Result<(), Vec<SpecViolation>> {
        let found = schema::violations(&self.validator, spec);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    /// Begins the incarnation, or says how far its start has come.
    ///
    /// # Errors
    /// As each call: what ended it, see [`CallCause`].
    pub async fn start(&self, host: Arc<dyn DeploymentHost>) -> Result<Status, CallError> {
        let answer = self.callee.call("start", host, |run| {
            Box::pin(async move {
                let guest = run.project()?;
                guest.call_start(&mut run.store, handle(run.deployment)).await
            })
        });
        self.status("start", answer.await?, &[Phase::Created, Phase::Destroyed])
    }

    /// Asks the workload to end; by force after `grace_ms`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn stop(&self, host: Arc<dyn DeploymentHost>, grace_ms: u32) -> Result<Status, CallError> {
        let answer = self.callee.call("stop", host, move |run| {
            Box::pin(async move {
                let guest = run.project()?;
                guest.call_stop(&mut run.store, handle(run.deployment), grace_ms).await
            })
        });
        self.status("stop", answer.await?, &[Phase::Created, Phase::Starting, Phase::Destroyed])
    }

    /// Stops what an earlier incarnation left and starts this one.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&self, host: Arc<dyn DeploymentHost>, grace_ms: u32) -> Result<Status, CallError> {
        let answer = self.callee.call("restart", host, move |run| {
            Box::pin(async move {
                let guest = run.project()?;
                guest.call_restart(&mut run.store, handle(run.deployment), grace_ms).await
            })
        });
        self.status("restart", answer.await?, &[Phase::Created, Phase::Destroyed])
    }

    /// Gone for good.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn destroy(&self, host: Arc<dyn DeploymentHost>) -> Result<Status, CallError> {
        let answer = self.callee.call("destroy", host, |run| {
            Box::pin(async move {
                let guest = run.project()?;
                guest.call_destroy(&mut run.store, handle(run.deployment)).await
            })
        });
        self.status("destroy", answer.await?, &[Phase::Created, Phase::Starting, Phase::Running])
    }

    /// How it is. Changes nothing.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn inspect(&self, host: Arc<dyn DeploymentHost>) -> Result<Status, CallError> {
        let answer = self.callee.call("inspect", host, |run| Box::pin(run.inspect()));
        self.status("inspect", answer.await?, &[])
    }

    /// Where requests for a service go: one of the deployment's, by its name, or a decimal port.
    ///
    /// # Errors
    /// As [`start`](Self::start); `not-found` and `busy` are the adapter's answers.
    pub async fn get_fetcher(
        &self,
        host: Arc<dyn DeploymentHost>,
        service: &str,
    ) -> Result<Fetcher, CallError> {
        let service = service.to_owned();
        let answer = self.callee.call("get-fetcher", host, move |run| {
            Box::pin(async move {
                let guest = run.project()?;
                guest.call_get_fetcher(&mut run.store, handle(run.deployment), &service).await
            })
        });
        self.checked("get-fetcher", answer.await?, convert::fetcher)
    }

    /// Health by the runtime's own means.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`CallCause::Unsupported`] without `health-check`.
    pub async fn check_health(&self, host: Arc<dyn DeploymentHost>) -> Result<Health, CallError> {
        self.needs("check-health", "health-check")?;
        let answer = self.callee.call("check-health", host, |run| {
            Box::pin(async move {
                let guest =
                    run.interface(|found| found.health.clone())?.load(&mut run.store, &run.instance)?;
                guest.call_check_health(&mut run.store, handle(run.deployment)).await
            })
        });
        self.checked("check-health", answer.await?, |health| Ok(convert::health(health)))
    }

    /// A command inside the deployment. Repeated with the same id it never runs a second time.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`CallCause::Unsupported`] without `control`.
    pub async fn exec(
        &self,
        host: Arc<dyn DeploymentHost>,
        execution_id: &str,
        command: Command,
    ) -> Result<Execution, CallError> {
        self.needs("exec", "control")?;
        let (id, command) = (execution_id.to_owned(), convert::command_to_guest(command));
        let answer = self.callee.call("exec", host, move |run| {
            Box::pin(async move {
                let guest =
                    run.interface(|found| found.control.clone())?.load(&mut run.store, &run.instance)?;
                guest.call_exec(&mut run.store, handle(run.deployment), &id, &command).await
            })
        });
        self.checked("exec", answer.await?, |raw| convert::execution(raw, self.limits()))
    }

    /// The output of an execution from so many bytes on.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub async fn attach(
        &self,
        host: Arc<dyn DeploymentHost>,
        execution_id: &str,
        cursor: u64,
    ) -> Result<Execution, CallError> {
        self.needs("attach", "control")?;
        let id = execution_id.to_owned();
        let answer = self.callee.call("attach", host, move |run| {
            Box::pin(async move {
                let guest =
                    run.interface(|found| found.control.clone())?.load(&mut run.store, &run.instance)?;
                guest.call_attach(&mut run.store, handle(run.deployment), &id, cursor).await
            })
        });
        self.checked("attach", answer.await?, |raw| convert::execution(raw, self.limits()))
    }

    /// What the deployment has printed.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`CallCause::Unsupported`] without `logs`.
    pub async fn read_logs(&self, host: Arc<dyn DeploymentHost>, tail: Tail) -> Result<LogSource, CallError> {
        self.needs("read-logs", "logs")?;
        let tail = convert::tail_to_guest(tail);
        let answer = self.callee.call("read-logs", host, move |run| {
            Box::pin(async move {
                let guest = run.interface(|found| found.logs.clone())?.load(&mut run.store, &run.instance)?;
                guest.call_read_logs(&mut run.store, handle(run.deployment), tail).await
            })
        });
        self.checked("read-logs", answer.await?, |raw| convert::log_source(raw, self.limits()))
    }

    /// How long so many calls of `inspect` take, one after the other, instance and all.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[doc(hidden)]
    pub async fn bench_calls(
        &self,
        host: Arc<dyn DeploymentHost>,
        calls: u32,
        instances: Instances,
    ) -> Result<Duration, CallError> {
        let begun = Instant::now();
        match instances {
            Instances::Fresh => {
                for _ in 0..calls {
                    self.inspect(Arc::clone(&host)).await?;
                }
            }
            Instances::Warm => {
                self.callee
                    .call("inspect", host, move |run| {
                        Box::pin(async move {
                            for _ in 0..calls {
                                run.inspect().await?.map_err(|error| wasmtime::format_err!("{error:?}"))?;
                                run.store.data_mut().forget_calls();
                            }
                            Ok(())
                        })
                    })
                    .await?;
            }
        }
        Ok(begun.elapsed())
    }

    fn limits(&self) -> &Limits {
        &self.callee.shared.limits
    }

    fn error(&self, function: &'static str, cause: CallCause) -> CallError {
        CallError { adapter: self.name.to_string(), function, cause }
    }

    fn needs(&self, function: &'static str, interface: &'static str) -> Result<(), CallError> {
        if self.exports.contains(&interface) {
            return Ok(());
        }
        Err(self.error(function, CallCause::Unsupported { interface }))
    }

    /// The guest's own error apart, its answer checked.
    fn checked<R, T>(
        &self,
        function: &'static str,
        answer: Result<R, wit::Error>,
        check: impl FnOnce(R) -> Result<T, String>,
    ) -> Result<T, CallError> {
        let answer =
            answer.map_err(|error| self.error(function, CallCause::Adapter(convert::error(error))))?;
        check(answer).map_err(|problem| self.error(function, CallCause::Answer(problem)))
    }

    fn status(
        &self,
        function: &'static str,
        answer: Result<wit::Status, wit::Error>,
        never: &[Phase],
    ) -> Result<Status, CallError> {
        self.checked(function, answer, |raw| convert::status(raw, never))
    }
}

impl Interfaces {
    fn find(pre: &InstancePre<CallState>, world: &World) -> wasmtime::Result<Self> {
        let has = |name| world.exports.contains(&name);
        Ok(Self {
            project: project_deployment::GuestIndices::new(pre)?,
            health: has("health-check").then(|| health_check::GuestIndices::new(pre)).transpose()?,
            control: has("control").then(|| control::GuestIndices::new(pre)).transpose()?,
            logs: has("logs").then(|| logs::GuestIndices::new(pre)).transpose()?,
        })
    }

    /// Checks the types of all functions.
    fn check(&self, store: &mut Store<CallState>, instance: &Instance) -> wasmtime::Result<()> {
        self.project.load(&mut *store, instance)?;
        if let Some(health) = &self.health {
            health.load(&mut *store, instance)?;
        }
        if let Some(control) = &self.control {
            control.load(&mut *store, instance)?;
        }
        if let Some(logs) = &self.logs {
            logs.load(&mut *store, instance)?;
        }
        Ok(())
    }
}

/// What calls are made to.
struct Callee {
    name: Arc<str>,
    pre: InstancePre<CallState>,
    interfaces: Interfaces,
    calls: Semaphore,
    shared: Arc<Shared>,
}

/// An instance in the middle of a call.
struct Running<'c> {
    store: Store<CallState>,
    instance: Instance,
    /// Where the deployment is in the store's table.
    deployment: u32,
    interfaces: &'c Interfaces,
}

type Reply<'a, R> = Pin<Box<dyn Future<Output = wasmtime::Result<R>> + Send + 'a>>;

fn handle(deployment: u32) -> Resource<DeploymentHandle> {
    Resource::new_borrow(deployment)
}

impl Running<'_> {
    fn project(&mut self) -> wasmtime::Result<project_deployment::Guest> {
        self.interfaces.project.load(&mut self.store, &self.instance)
    }

    fn interface<I>(&self, choose: impl FnOnce(&Interfaces) -> Option<I>) -> wasmtime::Result<I> {
        choose(self.interfaces).ok_or_else(|| wasmtime::format_err!("an interface that is not exported"))
    }

    async fn inspect(&mut self) -> wasmtime::Result<Result<wit::Status, wit::Error>> {
        let guest = self.project()?;
        guest.call_inspect(&mut self.store, handle(self.deployment)).await
    }
}

impl Callee {
    /// One call about a deployment.
    async fn call<R, F>(
        &self,
        function: &'static str,
        host: Arc<dyn DeploymentHost>,
        body: F,
    ) -> Result<R, CallError>
    where
        F: for<'a> FnOnce(&'a mut Running<'_>) -> Reply<'a, R>,
    {
        self.run(function, Some(host), body).await
    }

    /// The adapter's own words about itself; also checks the types of all that it exports.
    async fn describe(&self) -> Result<project_deployment::Descriptor, LoadCause> {
        let described = self.run("describe", None, |run| {
            Box::pin(async move {
                if let Err(error) = run.interfaces.check(&mut run.store, &run.instance) {
                    return Ok(Err(format!("{error:#}")));
                }
                let guest = run.project()?;
                guest.call_describe(&mut run.store).await.map(Ok)
            })
        });
        described
            .await
            .map_err(LoadCause::Describe)?
            .map_err(|problem| LoadCause::Shape { served: SERVED.to_owned(), problem })
    }

    /// One call on a fresh instance: waits for a place, runs, and says what ended it.
    async fn run<R, F>(
        &self,
        function: &'static str,
        host: Option<Arc<dyn DeploymentHost>>,
        body: F,
    ) -> Result<R, CallError>
    where
        F: for<'a> FnOnce(&'a mut Running<'_>) -> Reply<'a, R>,
    {
        let Shared { engine, limits, calls } = &*self.shared;
        let deadline = Instant::now() + limits.call;
        let fail = |cause| CallError { adapter: self.name.to_string(), function, cause };
        let places = async { (self.calls.acquire().await, calls.acquire().await) };
        let Ok(_places) = tokio::time::timeout_at(deadline.into(), places).await else {
            let (own, all) = (limits.calls_per_adapter, limits.calls);
            let what =
                format!("no place among the {own} calls of the adapter ({all} of all) for {:?}", limits.call);
            return Err(fail(CallCause::Internal(what)));
        };

        let mut store = Store::new(engine, CallState::new(&self.name, host, limits, deadline));
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.crossing_bytes);
        store.epoch_deadline_callback(|mut context| {
            context.data_mut().tick()?;
            Ok(UpdateDeadline::Yield(1))
        });
        store.set_epoch_deadline(1);
        let deployment = match store.data_mut().table.push(DeploymentHandle) {
            Ok(handle) => handle.rep(),
            Err(error) => return Err(fail(CallCause::Internal(error.to_string()))),
        };

        // From outside: a host call that hangs has no epochs.
        let instance = tokio::time::timeout_at(deadline.into(), self.pre.instantiate_async(&mut store)).await;
        let instance = match instance {
            Ok(Ok(instance)) => instance,
            Ok(Err(error)) => return Err(fail(cause(&error, store.data_mut(), limits))),
            Err(_) => return Err(fail(timed_out(store.data_mut(), limits))),
        };
        let mut run = Running { store, instance, deployment, interfaces: &self.interfaces };
        let answer = tokio::time::timeout_at(deadline.into(), body(&mut run)).await;
        // What is left of the store after an error is in no known state: it goes with this scope.
        let state = run.store.data_mut();
        match answer {
            Ok(Ok(answer)) => {
                state.close();
                Ok(answer)
            }
            Ok(Err(error)) => Err(fail(cause(&error, state, limits))),
            Err(_) => Err(fail(timed_out(state, limits))),
        }
    }
}

fn timed_out(state: &mut CallState, limits: &Limits) -> CallCause {
    state.close();
    CallCause::Timeout { limit: limits.call }
}

/// What an error of wasmtime means.
fn cause(error: &wasmtime::Error, state: &mut CallState, limits: &Limits) -> CallCause {
    let words = state.close();
    if let Some(cause) = state.tripped() {
        return cause;
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return CallCause::Internal(format!("{error:#}"));
    }
    let chain = format!("{error:#}");
    if chain.contains("fuel allocated for hostcalls") {
        return CallCause::Answer(format!("more than {} KiB at once", limits.crossing_bytes >> 10));
    }
    let what = match (error.downcast_ref::<wasmtime_wasi::I32Exit>(), error.downcast_ref::<wasmtime::Trap>())
    {
        (Some(exit), _) => format!("it ended itself with the exit code {}", exit.0),
        (_, Some(trap)) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        _ => chain,
    };
    CallCause::Trap(match words {
        Some(words) => format!("{what}; it last printed: {words}"),
        None => what,
    })
}
