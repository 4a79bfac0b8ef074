//! The engine: how components are compiled, and where their instances live.
//!
//! The compile helper and the workers use the same settings for everything that decides what code looks like, so that
//! the code that the one makes fits the others. What is different is where memory comes from: a worker takes it from a
//! pool that is reserved once, so that a fresh instance costs microseconds.
//!
//! There are two engines, because one that can do several things at a time in an instance, as components of WASI 0.3
//! want it, costs every call of every other component twice what it costs otherwise. The second is made when the first
//! such component comes. Neither runs code of the other.

use std::sync::Arc;

use aegis_domain::service::Wasi;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::mapping::PageProtection;

/// Largest linear memory that a component may declare or grow to, bytes. No limit of a module goes beyond.
pub const MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most component instances of one engine in a worker. Whoever asks for more waits for a berth, and never reaches the
/// engine.
pub(crate) const INSTANCES_MAX: u32 = 512;
/// Linear memories per component instance, on average.
pub(crate) const MEMORIES_EACH: u32 = 2;
/// Tables per component instance, on average.
pub(crate) const TABLES_EACH: u32 = 12;
/// Most core instances of one component instance: a Python component holds dozens.
const CORE_INSTANCES_MAX: u32 = 200;
/// Most linear memories of one component instance.
const MEMORIES_MAX: u32 = 8;
/// Most tables of one component instance.
const TABLES_MAX: u32 = 100;
/// Most linear memories that one core module declares.
const MODULE_MEMORIES_MAX: u32 = 4;
/// Most tables that one core module declares.
const MODULE_TABLES_MAX: u32 = 20;
/// Elements of one table: interpreters need many more than the engine's default.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Bytes of one instance's bookkeeping: interpreters need many more than the engine's default.
const INSTANCE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a linear memory that are kept and cleared between two instances; small guests need no more, and clearing
/// costs more than faulting beyond that.
const KEEP_RESIDENT_BYTES: usize = 64 * 1024;
/// Slots that keep their pages although nobody uses them.
const WARM_SLOTS_MAX: u32 = 32;
/// Stacks per component instance that does several things at a time, on average: components inside of it that wait
/// for each other have one each.
const STACKS_EACH: u32 = 2;

/// For what code is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// One call at a time in an instance.
    Classic,
    /// Calls, streams and futures side by side in an instance.
    Concurrent,
}

impl From<Wasi> for Profile {
    fn from(wasi: Wasi) -> Self {
        match wasi {
            Wasi::V02 => Self::Classic,
            Wasi::V03 => Self::Concurrent,
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[error("making the Wasm engine: {reason}")]
pub struct EngineError {
    /// What the engine said.
    pub reason: String,
}

impl EngineError {
    fn new(error: &wasmtime::Error) -> Self {
        Self { reason: format!("{error:#}") }
    }
}

/// What decides how code looks. The profiles differ in one thing and nothing else, so that an image whose code for one
/// of them fits another image's has the same for the other: see [`crate::compatibility()`].
fn settings(profile: Profile) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(profile == Profile::Concurrent)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .generate_address_map(true)
        // The engine finds its way through the stack without; and code can be unmapped as soon as it is not used.
        .native_unwind_info(false);
    config
}

/// The engine of the compile helper. It has a pool of one instance, so that a component that would not fit a worker's
/// pool is refused here.
///
/// # Errors
/// When this machine cannot run one.
pub(crate) fn compiler(profile: Profile) -> Result<Engine, EngineError> {
    let mut pool = bounds();
    pool.total_component_instances(1)
        .total_core_instances(CORE_INSTANCES_MAX)
        .total_memories(MEMORIES_MAX)
        .total_tables(TABLES_MAX)
        .total_stacks(1);
    let mut config = settings(profile);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
        .or_else(|_| Engine::new(&settings(profile)))
        .map_err(|error| EngineError::new(&error))
}

/// The engine of a worker.
///
/// # Errors
/// When this machine cannot run one.
pub(crate) fn runner(profile: Profile) -> Result<Engine, EngineError> {
    let engine = pooled(profile).or_else(|error| {
        tracing::warn!(
            target: "aegis::wasm",
            "memory for instances cannot be reserved ahead, so each takes longer to make: {error:#}"
        );
        Engine::new(&mapped(settings(profile)))
    });
    engine.map_err(|error| EngineError::new(&error))
}

/// Fails where address space is short (a container's limit, a small processor).
fn pooled(profile: Profile) -> wasmtime::Result<Engine> {
    let stacks_each = match profile {
        Profile::Classic => 1,
        Profile::Concurrent => STACKS_EACH,
    };
    let mut pool = bounds();
    pool.total_component_instances(INSTANCES_MAX)
        // Of these nothing is reserved, and nobody can tell before how many an instance has: as many as all may have.
        .total_core_instances(INSTANCES_MAX * CORE_INSTANCES_MAX)
        .total_memories(INSTANCES_MAX * MEMORIES_EACH)
        .total_tables(INSTANCES_MAX * TABLES_EACH)
        .total_stacks(INSTANCES_MAX * stacks_each)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        // At once: memory that waits to be cleared would keep the code of its component mapped.
        .decommit_batch_size(1);
    let mut config = mapped(settings(profile));
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// What one instance may be, wherever it lives.
fn bounds() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MODULE_MEMORIES_MAX)
        .max_tables_per_module(MODULE_TABLES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(usize::try_from(MEMORY_BYTES_MAX).unwrap_or(usize::MAX));
    pool
}

fn mapped(mut config: Config) -> Config {
    config.with_custom_code_memory(Some(Arc::new(PageProtection)));
    config
}
