//! One instance of an adapter, as its supervisor holds it: a task that owns the store. It serves from its start, or it is
//! opened beside the one that serves and waits until it may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use whimbrel_pubsub::{Features, Usage};

use crate::broker::{Adapter, BUSY_MAX, BrokerSettings, BrokerState, MEMORY_BYTES_MAX, Ticking, why};
use crate::grants::Grants;
use crate::jobs::Jobs;
use crate::log::PluginLog;
use crate::places::Places;
use crate::state::{self, State};
use crate::voice::Voice;
use crate::worker::{self, End, Retire, Shared};

/// How long past its time the reason may take why an instance beside is not ready.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// What all instances of one broker have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) settings: BrokerSettings,
    pub(crate) features: Arc<OnceLock<Features>>,
    pub(crate) state: Arc<watch::Sender<BrokerState>>,
    /// Whoever has locked it serves.
    pub(crate) jobs: Arc<Mutex<Jobs>>,
    pub(crate) places: Places,
    /// Instances so far.
    pub(crate) started: AtomicU64,
    /// What all of them take up together.
    pub(crate) usage: Usage,
    /// Times that messages may have been lost by the broker.
    pub(crate) losses: Arc<AtomicU64>,
}

/// A component and what it may reach: what an instance is made of.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) adapter: Adapter,
    pub(crate) grants: Arc<Grants>,
    pub(crate) log: PluginLog,
}

/// Why an instance beside is not ready.
#[derive(Debug)]
pub(crate) enum Unready {
    /// It may be another time.
    NotYet(String),
    /// This component will not be, as the resource is.
    Never(String),
}

/// See the module. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Instance {
    task: JoinHandle<Result<End, String>>,
    voice: Arc<Voice>,
    retire: mpsc::Sender<Retire>,
    go: Option<oneshot::Sender<()>>,
}

impl Instance {
    /// Starts one that serves.
    pub(crate) fn start(common: &Arc<Common>, made: &Made) -> Self {
        Self::launch(common, made, None)
    }

    /// Starts one beside the one that serves: it opens, becomes ready and waits.
    pub(crate) fn beside(common: &Arc<Common>, made: &Made) -> Self {
        let (go, gone) = oneshot::channel();
        let mut instance = Self::launch(common, made, Some(gone));
        instance.go = Some(go);
        instance
    }

    fn launch(common: &Arc<Common>, made: &Made, beside: Option<oneshot::Receiver<()>>) -> Self {
        let voice = Voice::new(&common.settings.name, Arc::clone(&common.state), beside.is_none());
        let voice = Arc::new(voice);
        let (retire, orders) = mpsc::channel(1);
        let life = live(Arc::clone(common), made.clone(), Arc::clone(&voice), orders, beside);
        Self { task: tokio::spawn(life), voice, retire, go: None }
    }

    /// Returns when it has ended. Once only.
    pub(crate) async fn ended(&mut self) -> Result<End, String> {
        (&mut self.task).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Waits until it could serve.
    pub(crate) async fn ready(&mut self, wait: Duration) -> Result<(), Unready> {
        let voice = Arc::clone(&self.voice);
        tokio::select! {
            biased;
            ended = self.ended() => Err(unready(ended)),
            () = voice.ready() => Ok(()),
            () = tokio::time::sleep(wait + REASON_WAIT) => {
                Err(Unready::NotYet(format!("not ready within {wait:?} (initTimeout): {}", voice.last())))
            }
        }
    }

    /// Lets it serve, if it does not yet.
    pub(crate) fn go(&mut self) {
        if let Some(go) = self.go.take() {
            self.voice.raise();
            // One that has ended meanwhile is seen to.
            go.send(()).ok();
        }
    }

    /// Asks it to serve no more, and to end when what it has in hand is done. `None`: it has ended. Why it cannot, else.
    pub(crate) async fn retire(&self) -> Option<Result<(), String>> {
        let (order, answer) = oneshot::channel();
        self.retire.send(order).await.ok()?;
        let answer = answer.await.ok()?;
        if answer.is_ok() {
            self.voice.mute();
        }
        Some(answer)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn unready(ended: Result<End, String>) -> Unready {
    match ended {
        Ok(End::NotOpened(error)) if error.is_final() => Unready::Never(error.to_string()),
        Ok(End::NotOpened(error)) => Unready::NotYet(error.to_string()),
        Ok(End::Hung(what)) => Unready::NotYet(what.to_owned()),
        Ok(End::Closed(_) | End::Retired) => Unready::NotYet("it has ended".to_owned()),
        Err(trap) => Unready::Never(format!("it trapped while it opened: {trap}")),
    }
}

/// Its life.
async fn live(
    common: Arc<Common>,
    made: Made,
    voice: Arc<Voice>,
    orders: mpsc::Receiver<Retire>,
    beside: Option<oneshot::Receiver<()>>,
) -> Result<End, String> {
    let engines = made.adapter.engines();
    let data = State::new(made.log.clone(), Arc::clone(&made.grants), MEMORY_BYTES_MAX, common.usage.clone());
    let last_words = data.last_words.clone();
    let (mut store, busy) = state::store(&engines.adapters, data, BUSY_MAX);
    let number = common.started.fetch_add(1, Ordering::Relaxed);
    let shared = Shared { engine: &engines.adapters, common: &common, voice: &voice, busy, log: &made.log, number };
    let life = async {
        let guest = made.adapter.pre().instantiate_async(&mut store).await?;
        store.run_concurrent(async |accessor| worker::run(accessor, &guest, orders, beside, &shared).await).await?
    };
    let life = Ticking { ticker: &engines.ticker, usage: &common.usage, future: Box::pin(life) };
    life.await.map_err(|error| why(&error, &last_words.take()))
}
