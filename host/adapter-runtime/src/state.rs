//! What one call's store holds, and the host's side of the contract.
//!
//! A bound that is broken is noted in `tripped` and ends the call by a trap; what the adapter asked for in
//! vain is an error that the guest sees.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime::{ResourceLimiter, bail};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wit_bindings::{DeploymentHandle, MachineHandle, host, types};

use crate::convert;
use crate::engine::TICK;
use crate::error::CallCause;
use crate::host::{DeploymentHost, MachineRef};
use crate::limits::Limits;
use crate::stdio::{Lines, Log, Sink, cut, lock};
use crate::types::Request;

/// What a request leaves of the call's time for the guest to make something of its failure.
const MARGIN: Duration = Duration::from_millis(250);
const MAX_LOCATOR: usize = 4096;
const MAX_EVENT: usize = 16 * 1024;
const MAX_RANDOM: u32 = 4096;

pub(crate) struct CallState {
    /// None in `describe`, which may not call it.
    host: Option<Arc<dyn DeploymentHost>>,
    limits: Arc<Limits>,
    deadline: Instant,
    pub(crate) table: ResourceTable,
    pub(crate) wasi: WasiCtx,
    log: Arc<Mutex<Log>>,
    output: [Lines; 2],
    memory_bytes: usize,
    host_calls: u32,
    events: u32,
    computing: Duration,
    computing_since: Instant,
    /// The first bound that was broken.
    tripped: Option<CallCause>,
}

struct HasState;

impl HasData for HasState {
    type Data<'a> = &'a mut CallState;
}

/// Links `hythe:deployment/host`.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    types::add_to_linker::<CallState, HasState>(linker, |state| state)?;
    host::add_to_linker::<CallState, HasState>(linker, |state| state)
}

impl CallState {
    pub(crate) fn new(
        adapter: &Arc<str>,
        host: Option<Arc<dyn DeploymentHost>>,
        limits: &Arc<Limits>,
        deadline: Instant,
    ) -> Self {
        let sink = match &host {
            Some(host) => Sink::Host(Arc::clone(host)),
            None => Sink::Trace { adapter: Arc::clone(adapter) },
        };
        let log = Arc::new(Mutex::new(Log::new(sink, limits.log_lines)));
        let stdout = Lines::new("stdout", Arc::clone(&log));
        let stderr = Lines::new("stderr", Arc::clone(&log));
        let wasi = WasiCtxBuilder::new()
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(MAX_RANDOM.into())
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        Self {
            host,
            limits: Arc::clone(limits),
            deadline,
            table,
            wasi,
            log,
            output: [stdout, stderr],
            memory_bytes: 0,
            host_calls: 0,
            events: 0,
            computing: Duration::ZERO,
            computing_since: Instant::now(),
            tripped: None,
        }
    }

    /// Ends the call for a bound that was broken.
    fn trip<T>(&mut self, cause: CallCause) -> wasmtime::Result<T> {
        let text = format!("{cause:?}");
        self.tripped.get_or_insert(cause);
        bail!("{text}")
    }

    pub(crate) fn tripped(&mut self) -> Option<CallCause> {
        self.tripped.take()
    }

    /// Writes out what has not been yet, and gives the last lines that the guest printed.
    pub(crate) fn close(&mut self) -> Option<String> {
        self.output.iter().for_each(Lines::close);
        let mut log = lock(&self.log);
        log.close();
        log.last_words()
    }

    /// An epoch has passed while the guest computed.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<()> {
        let now = Instant::now();
        // What lies further back was a host call or another task's turn.
        self.computing += (now - self.computing_since).min(TICK * 5);
        self.computing_since = now;
        if self.computing > self.limits.computing {
            return self.trip(CallCause::Computing { limit: self.limits.computing });
        }
        if now > self.deadline {
            return self.trip(CallCause::Timeout { limit: self.limits.call });
        }
        Ok(())
    }

    /// Another call on the same instance, as benchmarks make them.
    pub(crate) fn forget_calls(&mut self) {
        self.host_calls = 0;
        self.events = 0;
        self.computing = Duration::ZERO;
    }

    /// A call to the host begins.
    fn enter(&mut self, function: &'static str) -> wasmtime::Result<Arc<dyn DeploymentHost>> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls {
            return self.trip(CallCause::HostCalls { limit: self.limits.host_calls });
        }
        match &self.host {
            Some(host) => Ok(Arc::clone(host)),
            None => self.trip(CallCause::Trap(format!(
                "it called the host's `{function}`, which `describe` must not"
            ))),
        }
    }

    /// A call to the host that may have taken long is over: the guest computes again.
    fn leave(&mut self) {
        self.computing_since = Instant::now();
    }

    fn request(&self, raw: types::Request) -> Result<Request, types::Error> {
        let mut request = convert::request(raw, &self.limits).map_err(types::Error::Invalid)?;
        let left = self.deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN);
        request.timeout = Some(request.timeout.map_or(left, |timeout| timeout.min(left)));
        Ok(request)
    }

    fn machine_handle(&mut self, machine: MachineRef) -> wasmtime::Result<Resource<MachineHandle>> {
        Ok(self.table.push(MachineHandle { id: machine.id, name: machine.name })?)
    }
}

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.limits.memory_bytes {
            // A trap, not a failed `memory.grow`: what a guest makes of that is seldom clear.
            return self.trip(CallCause::OutOfMemory { limit_bytes: self.limits.memory_bytes });
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_elements)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }
}

impl types::Host for CallState {}

type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

impl host::Host for CallState {
    async fn send(&mut self, grant: String, request: types::Request) -> Answer<types::Response> {
        let host = self.enter("send")?;
        let request = match self.request(request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let answer = host.send_grant(&grant, request).await;
        self.leave();
        let answer = answer.and_then(|response| convert::response_to_guest(response, &self.limits));
        Ok(answer.map_err(convert::error_to_guest))
    }

    fn log(
        &mut self,
        level: host::Level,
        message: String,
        mut fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.enter("log")?;
        fields.truncate(16);
        for (name, value) in &mut fields {
            *name = cut(name, 64).to_owned();
            *value = cut(value, 1024).to_owned();
        }
        lock(&self.log).line(convert::level(level), &message, &fields);
        Ok(())
    }

    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        self.enter("now-ms")?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random_bytes(&mut self, count: u32) -> wasmtime::Result<Vec<u8>> {
        self.enter("random-bytes")?;
        if count > MAX_RANDOM {
            return self.trip(CallCause::Trap(format!(
                "it asked for {count} random bytes: at most {MAX_RANDOM} are given at once"
            )));
        }
        let mut bytes = vec![0; count as usize];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => self.trip(CallCause::Internal(format!("no random bytes: {error}"))),
        }
    }
}

impl host::HostDeployment for CallState {
    fn id(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<String> {
        Ok(self.enter("id")?.view().id.to_string())
    }

    fn project_id(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<String> {
        Ok(self.enter("project-id")?.view().project_id.to_string())
    }

    fn incarnation(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<u64> {
        Ok(self.enter("incarnation")?.view().incarnation)
    }

    fn spec(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<String> {
        Ok(self.enter("spec")?.view().spec.clone())
    }

    fn services(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<Vec<host::Service>> {
        let host = self.enter("services")?;
        let services = host.view().services.iter().map(|service| host::Service {
            name: service.name.to_string(),
            port: service.port,
            scheme: convert::scheme_to_guest(service.scheme),
        });
        Ok(services.collect())
    }

    fn source(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<Option<String>> {
        Ok(self.enter("source")?.view().source.clone())
    }

    fn locator(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<Option<String>> {
        Ok(self.enter("locator")?.locator())
    }

    async fn set_locator(&mut self, _: Resource<DeploymentHandle>, locator: Option<String>) -> Answer<()> {
        let host = self.enter("set-locator")?;
        if let Some(length) = locator.as_ref().map(String::len).filter(|length| *length > MAX_LOCATOR) {
            return Ok(Err(types::Error::Invalid(format!(
                "a locator of {length} bytes: at most {MAX_LOCATOR} are kept"
            ))));
        }
        let answer = host.set_locator(locator).await;
        self.leave();
        Ok(answer.map_err(convert::error_to_guest))
    }

    fn idempotency_key(&mut self, _: Resource<DeploymentHandle>) -> wasmtime::Result<String> {
        Ok(self.enter("idempotency-key")?.view().idempotency_key.clone())
    }

    async fn machine(&mut self, _: Resource<DeploymentHandle>) -> Answer<Option<Resource<MachineHandle>>> {
        let host = self.enter("machine")?;
        let answer = host.held_machine().await;
        self.leave();
        match answer {
            Ok(machine) => Ok(Ok(machine.map(|machine| self.machine_handle(machine)).transpose()?)),
            Err(error) => Ok(Err(convert::error_to_guest(error))),
        }
    }

    async fn acquire_machine(
        &mut self,
        _: Resource<DeploymentHandle>,
        want: host::Requirements,
    ) -> Answer<Resource<MachineHandle>> {
        let host = self.enter("acquire-machine")?;
        let answer = host.acquire_machine(convert::requirements(want)).await;
        self.leave();
        match answer {
            Ok(machine) => Ok(Ok(self.machine_handle(machine)?)),
            Err(error) => Ok(Err(convert::error_to_guest(error))),
        }
    }

    async fn release_machine(&mut self, _: Resource<DeploymentHandle>) -> Answer<()> {
        let host = self.enter("release-machine")?;
        let answer = host.release_machine().await;
        self.leave();
        Ok(answer.map_err(convert::error_to_guest))
    }

    fn event(&mut self, _: Resource<DeploymentHandle>, name: String, data: String) -> wasmtime::Result<()> {
        let host = self.enter("event")?;
        let named = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        let valid = data.len() <= MAX_EVENT && serde_json::from_str::<serde::de::IgnoredAny>(&data).is_ok();
        if !named || !valid {
            let what = format!(
                "it wrote an event {:?} whose name or JSON the contract does not allow",
                cut(&name, 64)
            );
            return self.trip(CallCause::Trap(what));
        }
        self.events += 1;
        if self.events <= self.limits.events {
            host.event(&name, &data);
        } else if self.events == self.limits.events + 1 {
            let message = "further events of this call are dropped";
            lock(&self.log).line(crate::host::Level::Warn, message, &[]);
        }
        Ok(())
    }

    fn drop(&mut self, deployment: Resource<DeploymentHandle>) -> wasmtime::Result<()> {
        self.table.delete(deployment)?;
        Ok(())
    }
}

impl host::HostMachine for CallState {
    fn id(&mut self, machine: Resource<MachineHandle>) -> wasmtime::Result<String> {
        self.enter("id")?;
        Ok(self.table.get(&machine)?.id.clone())
    }

    fn name(&mut self, machine: Resource<MachineHandle>) -> wasmtime::Result<String> {
        self.enter("name")?;
        Ok(self.table.get(&machine)?.name.clone())
    }

    async fn send(
        &mut self,
        machine: Resource<MachineHandle>,
        request: types::Request,
    ) -> Answer<types::Response> {
        let host = self.enter("machine.send")?;
        let machine = self.table.get(&machine)?.id.clone();
        let request = match self.request(request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let answer = host.send_machine(&machine, request).await;
        self.leave();
        let answer = answer.and_then(|response| convert::response_to_guest(response, &self.limits));
        Ok(answer.map_err(convert::error_to_guest))
    }

    fn drop(&mut self, machine: Resource<MachineHandle>) -> wasmtime::Result<()> {
        self.table.delete(machine)?;
        Ok(())
    }
}
