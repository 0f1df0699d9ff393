//! The supervisor of one broker's adapter: it starts instances, and starts another when one is lost. The queue of jobs
//! is the supervisor's: what waits there outlives an instance.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use wasmtime::component::{HasSelf, InstancePre, Linker};
use whimbrel_pubsub::{Broker, BrokerError, BrokerJob, Features};
use whimbrel_resources::Text;

use crate::bindings::adapter::whimbrel::pubsub as imports;
use crate::bindings::adapter::{BrokerAdapter, BrokerAdapterPre};
use crate::engine::{Engines, Ticker};
use crate::error::LoadError;
use crate::grants::Grants;
use crate::jobs::{Closing, Jobs};
use crate::loader::{Loader, Plugin};
use crate::log::{Level, PluginLog, cut};
use crate::state::{self, State};
use crate::worker::{self, End, Shared};

/// How long an adapter may run without giving its worker a turn.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// Linear memory of an adapter, bytes.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// The first wait before a fresh instance; it doubles up to [`RESTART_WAIT_MAX`].
const RESTART_WAIT_MIN: Duration = Duration::from_millis(10);

/// The longest wait within the budget.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);

/// Instances that may be lost within [`BUDGET_WINDOW`]. Beyond it the broker rests.
const RESTARTS_MAX: usize = 20;

/// See [`RESTARTS_MAX`].
const BUDGET_WINDOW: Duration = Duration::from_secs(60);

/// How long a broker rests that used up its budget. Publishes are refused meanwhile.
const REST: Duration = Duration::from_secs(30);

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
        let (state, watched) = watch::channel(BrokerState::Starting);
        let supervisor = Supervisor {
            engines: self.engines.clone(),
            pre: self.pre.clone(),
            features: Arc::clone(&broker.features),
            grants: Arc::new(settings.grants.clone()),
            log: PluginLog::new(&settings.name),
            settings,
            state: Arc::new(state),
            lost: VecDeque::new(),
        };
        tokio::spawn(supervisor.run(queue));
        watched
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

struct Supervisor {
    engines: Engines,
    pre: BrokerAdapterPre<State>,
    features: Arc<OnceLock<Features>>,
    grants: Arc<Grants>,
    log: PluginLog,
    settings: BrokerSettings,
    state: Arc<watch::Sender<BrokerState>>,
    /// When instances were lost, within the budget's window.
    lost: VecDeque<Instant>,
}

impl Supervisor {
    async fn run(mut self, queue: mpsc::Receiver<BrokerJob>) {
        let mut jobs = Jobs::new(queue);
        let closing = self.serve(&mut jobs).await;
        self.state.send_replace(BrokerState::Closed);
        if let Some(reply) = closing.0 {
            // Whoever asked may have given up.
            reply.send(()).ok();
        }
    }

    /// One instance after the other, until the broker is to close.
    async fn serve(&mut self, jobs: &mut Jobs) -> Closing {
        let name = self.settings.name.clone();
        loop {
            let why = match self.instance(jobs).await {
                Ok(End::Closed(closing)) => return closing,
                Ok(End::NotOpened(
                    error @ (BrokerError::Invalid(_) | BrokerError::Unauthorized(_) | BrokerError::Permanent(_)),
                )) => {
                    tracing::error!(broker = name, "cannot be opened: {error}");
                    self.state.send_replace(BrokerState::Failed(error.to_string()));
                    match jobs.refuse(None, "the broker cannot be opened").await {
                        Err(closing) => return closing,
                        Ok(()) => continue,
                    }
                }
                Ok(End::NotOpened(error)) => error.to_string(),
                Ok(End::Hung(what)) => what.to_owned(),
                Err(trap) => trap,
            };
            tracing::error!(broker = name, "the adapter was lost, a fresh instance follows: {why}");
            self.state.send_replace(BrokerState::Restarting(why));
            let rested = match self.restart_wait() {
                Some(wait) => jobs.meanwhile(tokio::time::sleep(wait)).await,
                None => {
                    let why = "the adapter was lost too often, and rests";
                    tracing::error!(broker = name, rest_seconds = REST.as_secs(), "{why}");
                    jobs.refuse(Some(Instant::now() + REST), why).await
                }
            };
            if let Err(closing) = rested {
                return closing;
            }
        }
    }

    /// The life of one instance.
    async fn instance(&self, jobs: &mut Jobs) -> Result<End, String> {
        let data = State::new(self.log.clone(), Arc::clone(&self.grants), MEMORY_BYTES_MAX);
        let last_words = data.last_words.clone();
        let (mut store, busy) = state::store(&self.engines.adapters, data, BUSY_MAX);
        let shared = Shared {
            engine: &self.engines.adapters,
            features: &self.features,
            settings: &self.settings,
            state: &self.state,
            busy,
            log: &self.log,
        };
        let life = async {
            let guest = self.pre.instantiate_async(&mut store).await?;
            store.run_concurrent(async |accessor| worker::run(accessor, &guest, jobs, &shared).await).await?
        };
        Ticking { ticker: &self.engines.ticker, future: Box::pin(life) }
            .await
            .map_err(|error| why(&error, &last_words.take()))
    }

    /// How long to wait before the next instance; `None` when the budget is used up.
    fn restart_wait(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.lost.push_back(now);
        while self.lost.front().is_some_and(|lost| now.duration_since(*lost) > BUDGET_WINDOW) {
            self.lost.pop_front();
        }
        if self.lost.len() > RESTARTS_MAX {
            self.lost.clear();
            return None;
        }
        let doublings = u32::try_from(self.lost.len() - 1).unwrap_or(u32::MAX).min(16);
        let wait = RESTART_WAIT_MIN.saturating_mul(1 << doublings).min(RESTART_WAIT_MAX);
        Some(wait.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

/// The reason of a trap: its cause, and what the guest said last.
pub(crate) fn why(error: &wasmtime::Error, last_words: &str) -> String {
    let cause = error.root_cause().to_string();
    if last_words.is_empty() { cut(&cause) } else { cut(&format!("{cause}: {last_words}")) }
}

/// A future that runs guest code: while it is polled, epochs tick.
pub(crate) struct Ticking<'a, F> {
    pub(crate) ticker: &'a Ticker,
    pub(crate) future: Pin<Box<F>>,
}

impl<F: Future> Future for Ticking<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _running = self.ticker.enter();
        self.future.as_mut().poll(cx)
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
