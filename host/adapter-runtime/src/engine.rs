//! The control engine: what lifecycle calls run on.
//!
//! Its settings go into every compiled component's key, so the compiling child makes its engine here too.

use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::limits::Limits;

/// How long an epoch is: the longest that a computing guest keeps its thread before it yields.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Memories of one component; what wit-component makes has one or two.
const MEMORIES: u32 = 4;

const PAGE: usize = 64 * 1024;

/// What an engine is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Instances come from a pool that is set aside at once.
    Run,
    /// Nothing is instantiated.
    Compile,
}

/// An engine with the settings that compiled components are keyed by.
pub(crate) fn engine(memory_bytes: usize, purpose: Purpose, limits: &Limits) -> wasmtime::Result<Engine> {
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

/// Advances the engine's epoch every [`TICK`] for as long as the engine lives.
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
