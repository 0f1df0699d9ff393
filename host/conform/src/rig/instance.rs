//! One instance of the adapter in a host of its own: its own store, its own threads, so that it can be killed as a process
//! would be, and so that what it burns can be told from what others do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use whimbrel_pubsub::{Broker, BrokerError, Features, Message, Metadata, StartPosition};
use whimbrel_resources::Component;
use whimbrel_wasm::{Adapter, BrokerState, Replacer};

use super::inbox::Inbox;
use crate::check::Wrong;
use crate::profile::Profile;

/// How long past `initTimeout` an instance may take to open: another try is made when the first is in vain.
const OPEN_SPARE: Duration = Duration::from_secs(20);

/// How long a publish may take.
pub(crate) const PUBLISH_WAIT: Duration = Duration::from_secs(10);

/// How long subscribing may take.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(20);

/// How long a sign of life may take.
const PING_WAIT: Duration = Duration::from_secs(20);

/// How long closing is waited for. The host gives up before.
const CLOSE_WAIT: Duration = Duration::from_secs(15);

/// How long the threads of a killed instance may take to end.
const KILL_WAIT: Duration = Duration::from_secs(20);

/// Processor time is counted in hundredths of a second.
const CPU_TICK: Duration = Duration::from_millis(10);

/// What is published, to a topic that is named beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) key: Option<String>,
    pub(crate) data: Bytes,
    pub(crate) metadata: Metadata,
}

impl Payload {
    /// Bytes and nothing else.
    pub(crate) fn of(data: impl Into<Bytes>) -> Self {
        Self { key: None, data: data.into(), metadata: Vec::new() }
    }

    /// Messages that tell their numbers, see [`super::Inbox`].
    pub(crate) fn numbered(numbers: std::ops::Range<usize>) -> Vec<Self> {
        numbers.map(|number| Self::of(format!("message-{number}"))).collect()
    }

    /// The same with a key.
    pub(crate) fn keyed(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The same with one more pair of metadata.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One instance. Dropped, it is killed.
pub(crate) struct Instance {
    broker: Broker,
    state: watch::Receiver<BrokerState>,
    /// Tells what the component takes up.
    running: Replacer,
    runtime: Option<Runtime>,
    threads: Arc<Mutex<Vec<PathBuf>>>,
}

impl Instance {
    /// Starts one, and waits until it serves.
    pub(crate) async fn start(
        profile: &Profile,
        adapter: &Adapter,
        component: &Component,
        name: &str,
    ) -> Result<Self, Wrong> {
        let mut instance = Self::begin(profile, adapter, component, name)?;
        let bound = component.init_timeout + OPEN_SPARE;
        let settled = |state: &BrokerState| matches!(state, BrokerState::Ready | BrokerState::Failed(_));
        // What it was seen to be counts: the adapter's own news, `connecting` first, may come after that.
        let seen = timeout(bound, instance.state.wait_for(settled)).await;
        let seen = seen.ok().and_then(|seen| seen.map(|state| state.clone()).ok());
        match seen.unwrap_or_else(|| instance.state()) {
            BrokerState::Ready => Ok(instance),
            state => Err(Wrong::new(format!("an instance did not open within {} s: {state}", bound.as_secs()))),
        }
    }

    /// Starts one, and does not wait.
    pub(crate) fn begin(
        profile: &Profile,
        adapter: &Adapter,
        component: &Component,
        name: &str,
    ) -> Result<Self, Wrong> {
        let threads = Arc::default();
        let born = Arc::clone(&threads);
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).thread_name("instance").on_thread_start(move || note(&born)).enable_all();
        let runtime = runtime.build().map_err(|error| Wrong::new(format!("this machine gives no thread: {error}")))?;
        let (broker, queue) = Broker::new(Arc::new(component.clone()));
        let (state, running) = {
            let _inside = runtime.enter();
            adapter.start_replaceable(&broker, queue, profile.settings(component, name))
        };
        Ok(Self { broker, state, running, runtime: Some(runtime), threads })
    }

    /// What the adapter declares.
    pub(crate) fn features(&self) -> Features {
        self.broker.features()
    }

    /// How it stands.
    pub(crate) fn state(&self) -> BrokerState {
        self.state.borrow().clone()
    }

    /// How it stands, from now on.
    pub(crate) fn states(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }

    /// Whether it comes to stand so, in time.
    pub(crate) async fn reaches(&mut self, within: Duration, wanted: impl FnMut(&BrokerState) -> bool) -> bool {
        matches!(timeout(within, self.state.wait_for(wanted)).await, Ok(Ok(_)))
    }

    /// Publishes in one go, one result for each.
    pub(crate) async fn publish(&self, topic: &str, payloads: Vec<Payload>) -> Vec<Result<(), BrokerError>> {
        self.publish_within(topic, payloads, PUBLISH_WAIT).await
    }

    /// The same with a deadline.
    pub(crate) async fn publish_within(
        &self,
        topic: &str,
        payloads: Vec<Payload>,
        within: Duration,
    ) -> Vec<Result<(), BrokerError>> {
        let topic: Arc<str> = Arc::from(topic);
        let message = |Payload { key, data, metadata }| Message { topic: Arc::clone(&topic), key, data, metadata };
        self.broker.publish(payloads.into_iter().map(message).collect(), Instant::now() + within).await
    }

    /// Subscribes a group, which begins where the adapter has it when the broker does not know it yet.
    pub(crate) async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Result<Inbox, BrokerError> {
        self.subscribe_from(topic, group, max_unsettled, None).await
    }

    /// The same with a place to begin.
    pub(crate) async fn subscribe_from(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Result<Inbox, BrokerError> {
        let subscribing = self.broker.subscribe(topic.into(), group.to_owned(), max_unsettled, start, Vec::new());
        match timeout(SUBSCRIBE_WAIT, subscribing).await {
            Ok(feed) => feed.map(Inbox::new),
            Err(_) => Err(late("subscribe", SUBSCRIBE_WAIT)),
        }
    }

    /// Asks the broker for a sign of life.
    pub(crate) async fn ping(&self) -> Result<(), BrokerError> {
        timeout(PING_WAIT, self.broker.ping()).await.unwrap_or_else(|_| Err(late("ping", PING_WAIT)))
    }

    /// Closes in good order. How long it took; at most [`CLOSE_WAIT`].
    pub(crate) async fn close(self) -> Duration {
        let started = Instant::now();
        // Late or not: the time says it.
        timeout(CLOSE_WAIT, self.broker.close()).await.ok();
        started.elapsed()
    }

    /// Ends as by kill -9 of its host: nothing is settled or said, its connections drop.
    pub(crate) async fn kill(mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // A runtime may not be awaited where tasks run.
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(KILL_WAIT)).await.ok();
    }

    /// Bytes of the component's linear memory. It never shrinks.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.running.memory_bytes()
    }

    /// How often it has told that the broker may have lost messages.
    pub(crate) fn losses(&self) -> u64 {
        self.running.losses()
    }

    /// Processor time it has used so far; none where the system does not tell.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().map(|thread| thread_cpu(thread)).sum()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn late(what: &str, bound: Duration) -> BrokerError {
    BrokerError::Transient(format!("{what} has no answer after {} s", bound.as_secs()))
}

/// Where the system tells about the thread that runs this.
fn note(threads: &Mutex<Vec<PathBuf>>) {
    if let Ok(thread) = std::fs::read_link("/proc/thread-self") {
        threads.lock().unwrap_or_else(PoisonError::into_inner).push(Path::new("/proc").join(thread));
    }
}

/// The 14th and 15th field of `stat`: time in user and system mode. A thread that has ended uses none.
fn thread_cpu(thread: &Path) -> Option<Duration> {
    let Ok(stat) = std::fs::read_to_string(thread.join("stat")) else { return Some(Duration::ZERO) };
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u32>().ok());
    ticks.sum::<Option<u32>>().map(|ticks| CPU_TICK * ticks)
}
