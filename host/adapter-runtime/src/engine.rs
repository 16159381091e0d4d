//! The two engines: *control*, what lifecycle calls run on, and *routing*, for decisions about requests.
//!
//! Their settings go into every compiled component's key, so the compiling child makes its engine here too.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limits::Limits;

/// How long an epoch of the control engine is: the longest that a computing guest keeps its thread before it yields.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Memories of one component; what wit-component makes has one or two.
const MEMORIES: u32 = 4;

const PAGE: usize = 64 * 1024;

/// What an engine's calls are about; a component is compiled for one of them at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Lifecycle: on fibers, with host calls that wait, an instance for each call.
    Control,
    /// `http-routing`: synchronous, on instances that are kept.
    Routing,
}

/// What an engine is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Instances come from a pool that is set aside at once.
    Run,
    /// Nothing is instantiated.
    Compile,
}

/// An engine with the settings that compiled components are keyed by.
pub(crate) fn engine(
    kind: Kind,
    memory_bytes: usize,
    purpose: Purpose,
    limits: &Limits,
) -> wasmtime::Result<Engine> {
    match kind {
        Kind::Control => control(memory_bytes, purpose, limits),
        Kind::Routing => routing(),
    }
}

/// Instances are few (one for each adapter and worker thread) and stay, so there is no pool to set aside;
/// each memory has the whole 32-bit range reserved, so that no access is checked.
fn routing() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        // A trap's own name is enough, and traps happen on the path of a request.
        .wasm_backtrace_max_frames(None)
        .parallel_compilation(true);
    Engine::new(&config)
}

fn control(memory_bytes: usize, purpose: Purpose, limits: &Limits) -> wasmtime::Result<Engine> {
    let memory_bytes = memory_bytes.next_multiple_of(PAGE);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Lifecycle calls are synchronous in WIT; concurrency doubles an async call's cost.
        .concurrency_support(false)
        // A memory's whole address range is its cap, so a pool takes little address space; the price, a
        // check at each access, does not matter for lifecycle calls.
        .memory_reservation(memory_bytes as u64)
        .memory_guard_size(PAGE as u64)
        .parallel_compilation(true);
    if purpose == Purpose::Run {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(limits.calls)
            .total_core_instances(limits.calls * limits.instances)
            .total_memories(limits.calls * MEMORIES)
            .total_tables(limits.calls * limits.instances)
            .total_stacks(limits.calls)
            .max_core_instances_per_component(limits.instances)
            .max_memories_per_component(MEMORIES)
            .max_tables_per_component(limits.instances)
            .max_memory_size(memory_bytes)
            .table_elements(limits.table_elements)
            .max_unused_warm_slots(16);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    Engine::new(&config)
}

/// Advances the control engine's epoch every [`TICK`] for as long as the engine lives.
pub(crate) fn start_ticker(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new().name("adapter-epoch".into()).spawn(move || {
        loop {
            std::thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
    })?;
    Ok(())
}
