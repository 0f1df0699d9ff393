//! What belongs to one store: WASI with everything denied, limits, grants, the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::engine::TICK;
use crate::grants::Grants;
use crate::log::PluginLog;
use crate::stderr::LastWords;

/// The data of an adapter's store, and the part of a handler's that both share.
pub(crate) struct State {
    wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    limits: StoreLimits,
    pub(crate) grants: Arc<Grants>,
    pub(crate) log: PluginLog,
    pub(crate) last_words: LastWords,
    /// Reset by whatever shows that the guest works and does not spin.
    pub(crate) busy: BusyTicks,
}

impl State {
    pub(crate) fn new(plugin: &str, grants: Arc<Grants>, memory_bytes: usize) -> Self {
        let last_words = LastWords::default();
        let mut wasi = WasiCtx::builder();
        // No arguments, no environment, no folders, no sockets, no names. Clocks and random numbers are harmless.
        wasi.stderr(last_words.clone()).allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        Self {
            wasi: wasi.build(),
            table: ResourceTable::new(),
            limits: StoreLimitsBuilder::new().memory_size(memory_bytes).build(),
            grants,
            log: PluginLog::new(plugin),
            last_words,
            busy: BusyTicks::default(),
        }
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
