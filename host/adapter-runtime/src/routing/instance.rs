//! The routing engine, a component compiled for it, and an instance of one.

use std::sync::Arc;

use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Engine, Store, UpdateDeadline};
use wit_bindings::routing as wit;

use super::decision::RequestHead;
use super::state::RoutingState;
use super::ticker::Ticker;
use super::wasi;
use crate::engine::{Kind, Purpose, engine};
use crate::error::{CallCause, CallError, LoadCause, RuntimeError};
use crate::limits::{Limits, RoutingLimits};
use crate::world::SERVED;

pub(crate) const FUNCTION: &str = "route-http";

/// One a runtime.
pub(crate) struct RoutingEngine {
    pub(crate) engine: Engine,
    ticker: Arc<Ticker>,
    limits: Arc<RoutingLimits>,
}

impl RoutingEngine {
    pub(crate) fn new(limits: &Limits) -> Result<Self, RuntimeError> {
        let engine = engine(Kind::Routing, limits.memory_bytes, Purpose::Run, limits)
            .map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
        let ticker = Ticker::start(&engine).map_err(|error| RuntimeError::Engine(error.to_string()))?;
        Ok(Self { engine, ticker: Arc::new(ticker), limits: Arc::new(limits.routing.clone()) })
    }

    /// Links a component that was compiled for this engine, and makes sure that it can be instantiated.
    pub(crate) fn component(
        self: &Arc<Self>,
        name: &str,
        sha256: &str,
        component: &Component,
    ) -> Result<RoutingComponent, LoadCause> {
        let shape = |error: wasmtime::Error| LoadCause::Shape {
            served: SERVED.to_owned(),
            problem: format!("{error:#}"),
        };
        let mut linker = Linker::new(&self.engine);
        let pre = wasi::link(&mut linker, component)
            .and_then(|()| linker.instantiate_pre(component))
            .map_err(shape)?;
        let indices = wit::GuestIndices::new(&pre).map_err(shape)?;
        let engine = Arc::clone(self);
        let inner = Inner { name: name.into(), sha256: sha256.to_owned(), pre, indices, engine };
        let component = RoutingComponent(Arc::new(inner));
        let mut fresh = component.make().map_err(|cause| LoadCause::Routing(component.error(cause)))?;
        component.0.indices.load(&mut fresh.store, &fresh.instance).map_err(shape)?;
        Ok(component)
    }
}

/// An adapter's code for decisions about requests; goes into a [`RoutingTable`](crate::RoutingTable).
#[derive(Clone)]
pub struct RoutingComponent(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    sha256: String,
    pre: InstancePre<RoutingState>,
    indices: wit::GuestIndices,
    engine: Arc<RoutingEngine>,
}

impl std::fmt::Debug for RoutingComponent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutingComponent")
            .field("name", &self.0.name)
            .field("sha256", &self.0.sha256)
            .finish_non_exhaustive()
    }
}

/// What is made before its functions are looked for.
struct Fresh {
    store: Store<RoutingState>,
    instance: wasmtime::component::Instance,
}

impl RoutingComponent {
    /// The component's digest, lower-case hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    pub(crate) fn limits(&self) -> &RoutingLimits {
        &self.0.engine.limits
    }

    pub(crate) fn error(&self, cause: CallCause) -> CallError {
        CallError { adapter: self.0.name.to_string(), function: FUNCTION, cause }
    }

    fn make(&self) -> Result<Fresh, CallCause> {
        let RoutingEngine { engine, ticker, limits } = &*self.0.engine;
        let mut store = Store::new(engine, RoutingState::new(Arc::clone(limits), Arc::clone(ticker)));
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.crossing_bytes);
        store.epoch_deadline_callback(|mut context| {
            context.data_mut().tick()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_epoch_deadline(1);
        ticker.called();
        match self.0.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Fresh { store, instance }),
            Err(error) => Err(cause(&error, store.data_mut(), limits)),
        }
    }

    /// A fresh instance.
    pub(crate) fn instantiate(&self) -> Result<RoutingInstance, CallCause> {
        let Fresh { mut store, instance } = self.make()?;
        let guest = self
            .0
            .indices
            .load(&mut store, &instance)
            .map_err(|error| CallCause::Internal(format!("{error:#}")))?;
        Ok(RoutingInstance { store, guest })
    }

    /// One call. After an error the instance is in no known state.
    pub(crate) fn call(
        &self,
        instance: &mut RoutingInstance,
        head: &RequestHead<'_>,
    ) -> Result<wit::Decision, CallCause> {
        let RoutingEngine { ticker, limits, .. } = &*self.0.engine;
        let RoutingInstance { store, guest } = instance;
        store.data_mut().begin();
        store.set_epoch_deadline(1);
        ticker.called();
        match guest.call_route_http(&mut *store, head.to_guest()) {
            Ok(decision) => {
                store.data_mut().log(&self.0.name);
                Ok(decision)
            }
            Err(error) => Err(cause(&error, store.data_mut(), limits)),
        }
    }
}

/// An instance, and the store that it alone lives in.
pub(crate) struct RoutingInstance {
    store: Store<RoutingState>,
    guest: wit::Guest,
}

/// What an error of wasmtime means.
fn cause(error: &wasmtime::Error, state: &mut RoutingState, limits: &RoutingLimits) -> CallCause {
    if let Some(cause) = state.tripped() {
        return cause;
    }
    let chain = format!("{error:#}");
    if chain.contains("fuel allocated for hostcalls") {
        return CallCause::Answer(format!("more than {} KiB at once", limits.crossing_bytes >> 10));
    }
    let forbidden = chain.split_once("unknown import: `").and_then(|(_, rest)| rest.split_once('`'));
    let what = match (forbidden, error.downcast_ref::<wasmtime::Trap>()) {
        (Some((import, _)), _) => format!("it called {import}, which `{FUNCTION}` must not"),
        (None, Some(trap)) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        (None, None) => chain,
    };
    CallCause::Trap(match state.last_words() {
        Some(words) => format!("{what}; it last printed: {words}"),
        None => what,
    })
}
