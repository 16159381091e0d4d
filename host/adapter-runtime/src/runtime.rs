//! The runtime: its engines, and the way from bytes to an adapter.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;

use crate::adapter::{Adapter, Shared};
use crate::compile::{Compiler, digest};
use crate::engine::{Kind, Purpose, engine, start_ticker};
use crate::error::{LoadCause, LoadError, RuntimeError};
use crate::limits::RuntimeConfig;
use crate::routing::RoutingEngine;
use crate::state::{self, CallState};
use crate::wasi;
use crate::world::{self, SERVED};

/// Loads adapters. One a process is enough: its pool of instances is set aside when it is made, its
/// tickers run until it and all its adapters are dropped.
pub struct AdapterRuntime {
    shared: Arc<Shared>,
    linker: Linker<CallState>,
    compiler: Compiler,
    routing: Arc<RoutingEngine>,
    routing_compiler: Compiler,
}

impl std::fmt::Debug for AdapterRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdapterRuntime").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl AdapterRuntime {
    /// Makes the engines, with their tickers and the pool of the one for lifecycle calls.
    ///
    /// # Errors
    /// Where the machine can't give the pool's address space, or the folder for compiled components can't
    /// be used.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let RuntimeConfig { cache_dir, limits, compiler } = config;
        let fail = |error: wasmtime::Error| RuntimeError::Engine(format!("{error:#}"));
        let engine = engine(Kind::Control, limits.memory_bytes, Purpose::Run, &limits).map_err(fail)?;
        start_ticker(&engine).map_err(|error| RuntimeError::Engine(error.to_string()))?;
        let mut linker = Linker::new(&engine);
        state::link(&mut linker).and_then(|()| wasi::link(&mut linker)).map_err(fail)?;
        let routing = Arc::new(RoutingEngine::new(&limits)?);
        let routing_compiler =
            Compiler::new(Kind::Routing, &routing.engine, cache_dir.clone(), compiler.clone())?;
        let compiler = Compiler::new(Kind::Control, &engine, cache_dir, compiler)?;
        let calls = Semaphore::new(limits.calls as usize);
        let shared = Arc::new(Shared { engine, limits: Arc::new(limits), calls });
        Ok(Self { shared, linker, compiler, routing, routing_compiler })
    }

    /// Checks a component, compiles it unless that was done before, and lets it describe itself. `name` is
    /// what errors call it.
    ///
    /// Must be called on a tokio runtime with its time driver on, as all calls of the adapter must.
    ///
    /// # Errors
    /// What is wrong with the component, and what to do: [`LoadCause`].
    pub async fn load(&self, name: &str, bytes: &[u8]) -> Result<Arc<Adapter>, LoadError> {
        self.load_component(name, bytes)
            .await
            .map(Arc::new)
            .map_err(|cause| LoadError { adapter: name.to_owned(), cause })
    }

    async fn load_component(&self, name: &str, bytes: &[u8]) -> Result<Adapter, LoadCause> {
        let Shared { engine, limits, .. } = &*self.shared;
        if bytes.len() > limits.component_bytes {
            return Err(LoadCause::TooLarge { bytes: bytes.len(), limit: limits.component_bytes });
        }
        let copy = bytes.to_vec();
        let checked = tokio::task::spawn_blocking(move || Ok((world::check(&copy)?, digest(&copy)))).await;
        let (world, sha256) = checked.map_err(|error| LoadCause::Compile(error.to_string()))??;
        let component = self.compiler.component(engine, &sha256, bytes, limits).await?;
        let pre = self
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadCause::Shape { served: SERVED.to_owned(), problem: format!("{error:#}") })?;
        let routing = if world.exports.contains(&"http-routing") {
            let engine = &self.routing;
            let component = self.routing_compiler.component(&engine.engine, &sha256, bytes, limits).await?;
            Some(engine.component(name, &sha256, &component)?)
        } else {
            None
        };
        Adapter::new(name, sha256, world, pre, routing, Arc::clone(&self.shared)).await
    }
}
