//! A broker's adapter: loaded, started, replaced. Called by the binary and the conformance kit; what runs is the
//! `supervisor`'s.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use wasmtime::component::{HasSelf, InstancePre, Linker};
use whimbrel_pubsub::{Broker, BrokerJob, Metrics, PluginKind, Usage};
use whimbrel_resources::Text;

use crate::bindings::adapter::whimbrel::pubsub as imports;
use crate::bindings::adapter::{BrokerAdapter, BrokerAdapterPre};
use crate::engine::{Engines, Ticker};
use crate::error::LoadError;
use crate::grants::Grants;
use crate::instance::{Common, Made};
use crate::jobs::Jobs;
use crate::loader::{Loader, Plugin};
use crate::log::{Level, PluginLog, cut};
use crate::places::Places;
use crate::state::State;
use crate::supervisor::{Order, Supervisor};

/// How long an adapter may run without giving its worker a turn.
pub(crate) const BUSY_MAX: Duration = Duration::from_secs(1);

/// Linear memory of an adapter, bytes.
pub(crate) const MEMORY_BYTES_MAX: usize = 256 << 20;

/// What a broker's worker needs to know.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// The resource's name.
    pub name: String,
    /// The resource's metadata, secrets resolved.
    pub properties: Vec<(String, Text)>,
    /// Names this process among those that serve the same app.
    pub instance: String,
    /// Where it may connect to.
    pub grants: Grants,
    /// How long one try to open may take.
    pub open_wait: Duration,
    /// Where what it takes up is counted.
    pub metrics: Metrics,
    /// Messages in one publish call, if fewer than the adapter takes. For measurements.
    pub batch_messages_max: Option<u32>,
    /// Interrupts the adapter in the midst of its work after so many messages were given to it, which is a trap like any
    /// other. For tests of what survives.
    pub trap_every: Option<u64>,
}

/// How a broker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerState {
    /// Its first instance is on its way.
    Starting,
    /// It serves.
    Ready,
    /// The adapter is there, its broker is not.
    Connecting(String),
    /// An instance was lost; the text says why.
    Restarting(String),
    /// It will not open as it is configured.
    Failed(String),
    /// It was closed.
    Closed,
}

impl BrokerState {
    /// The state in one word, for those who may not read why: reasons name addresses.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Connecting(_) => "connecting",
            Self::Restarting(_) => "restarting",
            Self::Failed(_) => "failed",
            Self::Closed => "closed",
        }
    }
}

impl std::fmt::Display for BrokerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting(why) | Self::Restarting(why) | Self::Failed(why) => write!(f, "{}: {why}", self.word()),
            Self::Starting | Self::Ready | Self::Closed => f.write_str(self.word()),
        }
    }
}

/// A compiled adapter, of which any number may run.
#[derive(Clone)]
pub struct Adapter {
    engines: Engines,
    pre: BrokerAdapterPre<State>,
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").finish_non_exhaustive()
    }
}

impl Adapter {
    /// Compiles a plugin, or takes its code from the cache, and checks that it is an adapter.
    ///
    /// # Errors
    /// The file is none.
    pub fn load(loader: &Loader, plugin: &Plugin) -> Result<Self, LoadError> {
        Ok(Self { engines: loader.engines().clone(), pre: prepare(loader, plugin)? })
    }

    /// Starts a supervisor, which ends when the broker is closed. That the adapter does not open shows in its state.
    #[must_use]
    pub fn start(
        &self,
        broker: &Broker,
        queue: mpsc::Receiver<BrokerJob>,
        settings: BrokerSettings,
    ) -> watch::Receiver<BrokerState> {
        self.start_replaceable(broker, queue, settings).0
    }

    /// The same, for an adapter that another may replace while it runs.
    #[must_use]
    pub fn start_replaceable(
        &self,
        broker: &Broker,
        queue: mpsc::Receiver<BrokerJob>,
        settings: BrokerSettings,
    ) -> (watch::Receiver<BrokerState>, Replacer) {
        let (state, watched) = watch::channel(BrokerState::Starting);
        let (orders, ordered) = mpsc::channel(1);
        let (name, losses) = (settings.name.clone(), Arc::default());
        let usage = settings.metrics.usage(PluginKind::Broker, &name);
        let lags = settings.metrics.lags(&name, broker.declared.topic_prefix.as_deref());
        let made = self.made(settings.grants.clone(), &name);
        let common = Common {
            settings,
            features: Arc::clone(&broker.features),
            state: Arc::new(state),
            jobs: Arc::new(Mutex::new(Jobs::new(queue))),
            places: Places::new(lags),
            started: AtomicU64::new(0),
            usage: usage.clone(),
            losses: Arc::clone(&losses),
        };
        tokio::spawn(Supervisor::new(common, made, ordered).run());
        (watched, Replacer { name, orders, usage, losses })
    }

    fn made(&self, grants: Grants, name: &str) -> Made {
        Made { adapter: self.clone(), grants: Arc::new(grants), log: PluginLog::new(name) }
    }

    pub(crate) fn engines(&self) -> &Engines {
        &self.engines
    }

    pub(crate) fn pre(&self) -> &BrokerAdapterPre<State> {
        &self.pre
    }
}

/// A running adapter's other handle: lets another one take over while messages flow, and tells what this one takes up.
#[derive(Debug, Clone)]
pub struct Replacer {
    name: String,
    orders: mpsc::Sender<Order>,
    usage: Usage,
    losses: Arc<AtomicU64>,
}

/// Why another adapter did not take over. The one that ran runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// It may be another time: the broker cannot be reached, or did not answer in time.
    #[error("{0}")]
    NotReady(String),
    /// This one never will, as the resource is.
    #[error("{0}")]
    Unfit(String),
    /// The running one must stay.
    #[error("{0}")]
    Kept(String),
    /// The broker was closed.
    #[error("the broker is closed")]
    Closed,
}

impl Replacer {
    /// Bytes of linear memory that the adapter's instances have. One gives none back as long as it lives, so this is the most
    /// that it has needed.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.usage.memory_bytes()
    }

    /// How often the adapter has told that the broker may have lost messages.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Opens an adapter beside the running one. Once it is ready, it takes over: publishes go to it from then on; the
    /// other one answers those that it was given, settles what it delivered, and closes. Returns when the new one serves.
    ///
    /// # Errors
    /// See [`ReplaceError`].
    pub async fn replace(&self, adapter: &Adapter, grants: Grants) -> Result<(), ReplaceError> {
        let (reply, answer) = oneshot::channel();
        let order = Order { made: adapter.made(grants, &self.name), reply };
        self.orders.send(order).await.map_err(|_| ReplaceError::Closed)?;
        let lost = || ReplaceError::NotReady("the running adapter was lost meanwhile".to_owned());
        answer.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// Loads an adapter and starts its supervisor, which ends when the broker is closed.
///
/// # Errors
/// The file is no adapter. That an adapter does not open shows in its state.
pub fn start_broker(
    loader: &Loader,
    plugin: &Plugin,
    broker: &Broker,
    queue: mpsc::Receiver<BrokerJob>,
    settings: BrokerSettings,
) -> Result<watch::Receiver<BrokerState>, LoadError> {
    Ok(Adapter::load(loader, plugin)?.start(broker, queue, settings))
}

/// Compiles the component and checks its imports and exports against the world.
fn prepare(loader: &Loader, plugin: &Plugin) -> Result<BrokerAdapterPre<State>, LoadError> {
    let world = |error: wasmtime::Error| LoadError::World {
        path: plugin.path.clone(),
        world: "broker-adapter",
        reason: format!("{error:#}"),
    };
    let component = loader.adapter(plugin)?;
    let mut linker = Linker::new(&loader.engines().adapters);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(world)?;
    BrokerAdapter::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).map_err(world)?;
    let pre: InstancePre<State> = linker.instantiate_pre(&component).map_err(world)?;
    BrokerAdapterPre::new(pre).map_err(world)
}

/// The reason of a trap: its cause, and what the guest said last.
pub(crate) fn why(error: &wasmtime::Error, last_words: &str) -> String {
    let cause = error.root_cause().to_string();
    if last_words.is_empty() { cut(&cause) } else { cut(&format!("{cause}: {last_words}")) }
}

/// A future that runs guest code: while it is polled, epochs tick, and the time is the plugin's.
///
/// The clock is read twice a poll, never within one: 57 ns for both where it was measured. It is the wall's, for which the
/// kernel is not asked; the thread's own took 1145 ns, and tells something else only where a thread is kept waiting for a
/// core.
pub(crate) struct Ticking<'a, F> {
    pub(crate) ticker: &'a Ticker,
    pub(crate) usage: &'a Usage,
    pub(crate) future: Pin<Box<F>>,
}

impl<F: Future> Future for Ticking<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _running = self.ticker.enter();
        let begun = Instant::now();
        let polled = self.future.as_mut().poll(cx);
        self.usage.ran(begun.elapsed());
        polled
    }
}

impl imports::types::Host for State {}

impl imports::log::Host for State {
    fn write(&mut self, level: imports::log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            imports::log::Level::Debug => Level::Debug,
            imports::log::Level::Info => Level::Info,
            imports::log::Level::Warn => Level::Warn,
            imports::log::Level::Error => Level::Error,
        };
        self.log.write(level, &message);
        Ok(())
    }
}

impl imports::timer::Host for State {}

impl<T: Send> imports::timer::HostWithStore<T> for HasSelf<State> {
    async fn sleep(_: &wasmtime::component::Accessor<T, Self>, how_long: u64) -> wasmtime::Result<()> {
        tokio::time::sleep(Duration::from_nanos(how_long)).await;
        Ok(())
    }
}
