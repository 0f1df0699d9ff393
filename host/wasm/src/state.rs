//! What belongs to one store: WASI with everything denied, limits, grants, the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use whimbrel_pubsub::Usage;

use crate::engine::{TABLE_ELEMENTS_MAX, TICK};
use crate::grants::Grants;
use crate::log::PluginLog;
use crate::stderr::LastWords;

/// Connections of one plugin at the same time.
pub(crate) const SOCKETS_MAX: usize = 1024;

/// Core instances and tables of one store; language runtimes have dozens.
const INSTANCES_MAX: usize = 64;

/// Linear memories of one store. Their bytes count together.
const MEMORIES_MAX: usize = 8;

/// The data of an adapter's store, and the part of a handler's that both share.
pub(crate) struct State {
    wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    limits: Limits,
    pub(crate) grants: Arc<Grants>,
    pub(crate) log: PluginLog,
    /// What is left of [`SOCKETS_MAX`].
    pub(crate) sockets: Arc<Semaphore>,
    pub(crate) last_words: LastWords,
    /// Reset by whatever shows that the guest works and does not spin.
    pub(crate) busy: BusyTicks,
}

impl State {
    /// `usage` is told of each byte of linear memory, at most `memory_bytes` of them.
    pub(crate) fn new(log: PluginLog, grants: Arc<Grants>, memory_bytes: usize, usage: Usage) -> Self {
        let last_words = LastWords::default();
        let mut wasi = WasiCtx::builder();
        // No arguments, no environment, no folders, no sockets, no names. Clocks and random numbers are harmless.
        wasi.stderr(last_words.clone()).allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        Self {
            wasi: wasi.build(),
            table: ResourceTable::new(),
            limits: Limits { bytes_max: memory_bytes, bytes: 0, usage },
            grants,
            log,
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
            last_words,
            busy: BusyTicks::default(),
        }
    }
}

/// What a store may take up. A guest that cannot grow aborts, which is a trap like any other.
#[derive(Debug)]
struct Limits {
    bytes_max: usize,
    /// All linear memories together.
    bytes: usize,
    /// Of all stores of the plugin.
    usage: Usage,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        let fits = bytes <= self.bytes_max;
        if fits {
            self.usage.grew(bytes - self.bytes);
            self.bytes = bytes;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.usage.gave_back(self.bytes);
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// How long a guest has run without coming back to its worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct BusyTicks {
    ticks: Arc<AtomicU64>,
    /// It is to be interrupted at the next tick, whatever it does.
    doomed: Arc<AtomicBool>,
}

impl BusyTicks {
    /// The worker's loop got its turn.
    pub(crate) fn reset(&self) {
        self.ticks.store(0, Ordering::Relaxed);
    }

    /// Interrupts the guest at the next tick. Tests of what survives ask for it.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }
}

/// Makes a store that interrupts its guest once it has kept the worker from its turn for longer than `busy_max`. Until
/// then it lets other tasks of the host's threads run at each tick.
pub(crate) fn store<T: AsMut<State> + Send + 'static>(
    engine: &Engine,
    data: T,
    busy_max: Duration,
) -> (Store<T>, BusyTicks) {
    let mut store = Store::new(engine, data);
    store.limiter(|data| &mut data.as_mut().limits);
    let busy = store.data_mut().as_mut().busy.clone();
    let (ticks, doomed) = (Arc::clone(&busy.ticks), Arc::clone(&busy.doomed));
    let ticks_max = u64::try_from(busy_max.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if doomed.load(Ordering::Relaxed) || ticks.fetch_add(1, Ordering::Relaxed) >= ticks_max {
            return Ok(UpdateDeadline::Interrupt);
        }
        Ok(UpdateDeadline::Yield(1))
    });
    (store, busy)
}

impl AsMut<State> for State {
    fn as_mut(&mut self) -> &mut State {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        whimbrel_pubsub::Metrics::default().usage(whimbrel_pubsub::PluginKind::Broker, "bus")
    }

    #[test]
    fn all_memories_count_together() {
        let usage = usage();
        let mut limits = Limits { bytes_max: 100, bytes: 0, usage: usage.clone() };
        let mut grows = |from, to| limits.memory_growing(from, to, None).unwrap();
        assert!(grows(0, 60));
        assert!(grows(0, 30), "a second memory");
        assert!(!grows(30, 41), "90 and 11 more");
        assert!(grows(60, 70));
        assert!(!grows(0, 1));
        assert_eq!(usage.memory_bytes(), 100);
        let mut other = Limits { bytes_max: 100, bytes: 0, usage: usage.clone() };
        assert!(other.memory_growing(0, 7, None).unwrap());
        assert_eq!(usage.memory_bytes(), 107, "of two stores");
        drop(limits);
        assert_eq!(usage.memory_bytes(), 7, "one is gone");
    }

    #[test]
    fn tables_and_their_number_are_bounded() {
        let mut limits = Limits { bytes_max: 0, bytes: 0, usage: usage() };
        assert!(limits.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap());
        assert!(!limits.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).unwrap());
        assert_eq!(
            (limits.instances(), limits.tables(), limits.memories()),
            (INSTANCES_MAX, INSTANCES_MAX, MEMORIES_MAX)
        );
    }
}
