//! The two engines, and the ticks that keep a guest from running for ever.
//!
//! Adapters need the component model's concurrency, handlers do not, and a call without it costs a third.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use whimbrel_resources::{HANDLER_INSTANCES_MAX, HANDLER_MEMORY_BYTES_MAX};

/// The length of an epoch tick.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Elements of one table; language runtimes need thousands.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// The engines of the process. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    pub(crate) adapters: Engine,
    pub(crate) handlers: Engine,
    pub(crate) ticker: Ticker,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").finish_non_exhaustive()
    }
}

impl Engines {
    /// Makes the engines and starts their ticker.
    ///
    /// # Errors
    /// This machine cannot run wasmtime; the text says why.
    pub fn new() -> Result<Self, String> {
        let make = |config: &Config| Engine::new(config).map_err(|error| format!("{error:#}"));
        let mut config = Config::new();
        config.epoch_interruption(true);
        let mut adapters = config.clone();
        adapters.wasm_component_model_async(true);
        let mut handlers = config;
        handlers.wasm_component_model_async(false).concurrency_support(false);
        handlers.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        let (adapters, handlers) = (make(&adapters)?, make(&handlers)?);
        let ticker = Ticker::start(vec![adapters.clone(), handlers.clone()])?;
        Ok(Self { adapters, handlers, ticker })
    }
}

/// Limits that fit what every language's toolchain makes (see the handlers' reference).
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(HANDLER_INSTANCES_MAX)
        .total_core_instances(HANDLER_INSTANCES_MAX * 4)
        .total_memories(HANDLER_INSTANCES_MAX)
        .total_tables(HANDLER_INSTANCES_MAX * 4)
        .total_stacks(HANDLER_INSTANCES_MAX)
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_tables_per_component(64)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(usize::try_from(HANDLER_MEMORY_BYTES_MAX).unwrap_or(usize::MAX));
    pool
}

/// Increments the engines' epochs while some guest runs, and sleeps otherwise: idle costs nothing.
#[derive(Clone)]
pub(crate) struct Ticker {
    shared: Arc<Activity>,
    thread: Thread,
}

#[derive(Default)]
struct Activity {
    /// Guests that are inside a poll right now.
    running: AtomicU64,
    /// Polls so far: a change says that the last tick was not idle.
    polls: AtomicU64,
    parked: AtomicBool,
}

impl Ticker {
    fn start(engines: Vec<Engine>) -> Result<Self, String> {
        let shared = Arc::new(Activity::default());
        let activity = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("epoch-ticker".into())
            .spawn(move || tick(&engines, &activity))
            .map_err(|error| format!("starting the epoch ticker: {error}"))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Says that a guest may run until the guard is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        self.shared.polls.fetch_add(1, Ordering::Relaxed);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

/// A guest may run while this lives.
pub(crate) struct Running<'a>(&'a Activity);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engines: &[Engine], activity: &Activity) {
    let mut seen = 0;
    loop {
        let polls = activity.polls.load(Ordering::Relaxed);
        if activity.running.load(Ordering::SeqCst) == 0 && polls == seen {
            activity.parked.store(true, Ordering::SeqCst);
            // Looked at again after the flag is up: whoever came in between has seen no flag.
            if activity.running.load(Ordering::SeqCst) == 0 {
                std::thread::park();
            }
            activity.parked.store(false, Ordering::SeqCst);
        }
        seen = polls;
        std::thread::park_timeout(TICK);
        for engine in engines {
            engine.increment_epoch();
        }
    }
}
