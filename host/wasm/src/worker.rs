//! The life of one adapter instance: one store, one task that stays inside it, everybody else sends jobs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{Accessor, ResourceAny, Source, StreamConsumer, StreamResult};
use wasmtime::{Engine, StoreContextMut};
use whimbrel_pubsub::{BrokerError, BrokerJob, Features, PublishJob, SubscribeJob};

use crate::bindings::adapter::BrokerAdapter;
use crate::bindings::adapter::exports::whimbrel::pubsub::broker as wit;
use crate::broker::{BrokerSettings, BrokerState};
use crate::instance::Common;
use crate::jobs::{self, Closing, Jobs};
use crate::log::PluginLog;
use crate::places::Places;
use crate::state::{BusyTicks, State};
use crate::voice::Voice;
use crate::{convert, feed};

/// Publish calls at once, while none of them takes long: what comes meanwhile goes into the next call together.
const CALLS_MAX: usize = 2;

/// A call that takes longer than this no longer keeps others back.
const CALL_SLOW: Duration = Duration::from_millis(5);

/// Publish calls at once, whatever happens.
const SLOW_CALLS_MAX: usize = 64;

/// The same for an adapter whose publishes wait for their topic's subscribers.
const TOPIC_CALLS_MAX: usize = 1024;

/// Bytes of the messages in one publish call, if there is more than one job in it: they stand in the guest's memory, and
/// again in what it writes.
const CALL_BYTES_MAX: usize = 8 << 20;

/// Publishes that wait inside the worker.
const BACKLOG_JOBS_MAX: usize = 4096;

/// Jobs taken from the queue at a time.
const JOBS_PER_TURN: usize = 512;

/// How long past its deadline a publish call may stay unanswered before the instance counts as hung.
const OVERDUE_MAX: Duration = Duration::from_secs(10);

/// How long closing may take.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// How long an instance that was replaced may take to finish what it has in hand: longer than the spine's bounds to empty
/// a feed and stop it, and than a publish may be overdue.
const RETIRE_WAIT: Duration = Duration::from_secs(45);

/// Asks an instance to let another serve; why not, else.
pub(crate) type Retire = oneshot::Sender<Result<(), String>>;

/// How an instance's life ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was asked to close, and has.
    Closed(Closing),
    /// Another one serves, and it has finished what it had in hand.
    Retired,
    /// It did not open. Final, if the failure says so.
    NotOpened(BrokerError),
    /// It hangs.
    Hung(&'static str),
}

/// What the worker shares with its supervisor.
pub(crate) struct Shared<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) common: &'a Common,
    pub(crate) voice: &'a Arc<Voice>,
    pub(crate) busy: BusyTicks,
    pub(crate) log: &'a PluginLog,
    /// Which instance of its broker it is.
    pub(crate) number: u64,
}

type Call<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<Done>> + Send + 'a>>;

enum Done {
    Publish(u64),
    Feed,
    Other,
}

/// Opens the connection and serves jobs until the end. `beside`: another instance serves, until this is told.
///
/// # Errors
/// The guest's trap.
pub(crate) async fn run(
    store: &Accessor<State>,
    guest: &BrokerAdapter,
    mut retire: mpsc::Receiver<Retire>,
    beside: Option<oneshot::Receiver<()>>,
    shared: &Shared<'_>,
) -> wasmtime::Result<End> {
    let queue = || Arc::clone(&shared.common.jobs).lock_owned();
    let mut jobs = if beside.is_none() { Some(queue().await) } else { None };
    let connection = match open(store, guest, jobs.as_deref_mut(), &mut retire, shared).await? {
        Ok(connection) => connection,
        Err(end) => return Ok(end),
    };
    let calls = guest.whimbrel_pubsub_broker().connection();
    let settings = &shared.common.settings;
    let mut features = convert::features(&calls.call_features(store, connection).await?);
    features.max_batch = settings.batch_messages_max.unwrap_or(u32::MAX).min(features.max_batch);
    let news = calls.call_status(store, connection).await?;
    if let Some(lacks) = shared.common.features.get().and_then(|running| lacks(running, &features)) {
        return Ok(End::NotOpened(BrokerError::Permanent(lacks)));
    }
    if let Some(go) = beside {
        store.with(|mut access| news.pipe(&mut access, ToState::new(shared)))?;
        if !turn(go, shared).await {
            return Ok(End::Retired);
        }
        shared.common.features.get_or_init(|| features.clone());
    } else {
        // Whoever sees `Ready` sees the features.
        shared.common.features.get_or_init(|| features.clone());
        store.with(|mut access| news.pipe(&mut access, ToState::new(shared)))?;
        shared.voice.first_word().await;
    }
    let jobs = match jobs {
        Some(jobs) => jobs,
        None => queue().await,
    };
    let mut worker = Worker {
        store,
        guest,
        connection,
        features,
        calls: FuturesUnordered::new(),
        in_flight: Vec::new(),
        next: 0,
        messages: 0,
        feeds: 0,
        leave: CancellationToken::new(),
    };
    worker.serve(jobs, retire, shared).await
}

/// Opens the connection. An instance that is about to serve looks after the jobs meanwhile, and lets another go first.
async fn open(
    store: &Accessor<State>,
    guest: &BrokerAdapter,
    jobs: Option<&mut Jobs>,
    retire: &mut mpsc::Receiver<Retire>,
    shared: &Shared<'_>,
) -> wasmtime::Result<Result<ResourceAny, End>> {
    let settings = &shared.common.settings;
    let calls = guest.whimbrel_pubsub_broker().connection();
    let opening = calls.call_open(store, config(settings));
    let opening = tokio::time::timeout(settings.open_wait, opening);
    let opened = match jobs {
        None => opening.await,
        Some(jobs) => tokio::select! {
            biased;
            Some(order) = retire.recv() => {
                // Whoever asked may have given up; then there is a fresh instance.
                order.send(Ok(())).ok();
                return Ok(Err(End::Retired));
            }
            opened = jobs.meanwhile(opening) => match opened {
                Ok(opened) => opened,
                Err(closing) => return Ok(Err(End::Closed(closing))),
            },
        },
    };
    let Ok(opened) = opened else {
        let complaint = shared.log.take_complaint();
        let late = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
        return Ok(Err(End::NotOpened(BrokerError::Transient(format!("it did not open in time{late}")))));
    };
    Ok(opened?.map_err(|error| End::NotOpened(convert::failure(error))))
}

/// Waits until it may serve. It will not, if nobody can tell it any more.
async fn turn(mut go: oneshot::Receiver<()>, shared: &Shared<'_>) -> bool {
    let mut clock = tokio::time::interval(CALL_SLOW);
    loop {
        shared.busy.reset();
        tokio::select! {
            biased;
            told = &mut go => return told.is_ok(),
            _ = clock.tick() => {}
        }
    }
}

/// What the host relies on since it knows the running adapter, and would not find in another.
fn lacks(running: &Features, next: &Features) -> Option<String> {
    let abilities = [
        ("durable", running.durable, next.durable),
        ("ttl", running.ttl, next.ttl),
        ("ordering", running.ordering, next.ordering),
        ("wildcards", running.wildcards, next.wildcards),
        ("delay", running.delay, next.delay),
        ("delivery-count", running.delivery_count, next.delivery_count),
        ("groups", running.groups, next.groups),
        ("topic-flow", running.topic_flow, next.topic_flow),
    ];
    let gone: Vec<&str> = abilities.iter().filter(|(_, has, will)| *has && !will).map(|(name, ..)| *name).collect();
    if !gone.is_empty() {
        return Some(format!("it has not all features of the running one: {} missing", gone.join(", ")));
    }
    let (before, after) = (running.max_message_bytes, next.max_message_bytes);
    let smaller = after != 0 && (before == 0 || after < before);
    smaller.then(|| format!("it takes messages of {after} bytes at most, the running one of {before} (0: any)"))
}

fn config(settings: &BrokerSettings) -> wit::Config {
    let property = |(name, value): &(String, whimbrel_resources::Text)| wit::Property {
        name: name.clone(),
        value: value.reveal().to_owned(),
    };
    wit::Config {
        name: settings.name.clone(),
        properties: settings.properties.iter().map(property).collect(),
        instance: settings.instance.clone(),
    }
}

struct Worker<'a> {
    store: &'a Accessor<State>,
    guest: &'a BrokerAdapter,
    connection: ResourceAny,
    features: Features,
    calls: FuturesUnordered<Call<'a>>,
    in_flight: Vec<InFlight>,
    next: u64,
    /// Messages given to the instance so far.
    messages: u64,
    /// Subscriptions that are being opened or live.
    feeds: usize,
    /// Tells the subscriptions that another instance serves.
    leave: CancellationToken,
}

/// A publish call that has no answer yet.
struct InFlight {
    id: u64,
    started: Instant,
    deadline: Instant,
}

impl<'a> Worker<'a> {
    async fn serve(
        &mut self,
        mut jobs: OwnedMutexGuard<Jobs>,
        mut retire: mpsc::Receiver<Retire>,
        shared: &Shared<'a>,
    ) -> wasmtime::Result<End> {
        let mut backlog = VecDeque::new();
        let mut taken = Vec::new();
        let mut clock = tokio::time::interval(CALL_SLOW);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            shared.busy.reset();
            while !backlog.is_empty() && self.has_room() {
                self.publish(&mut backlog);
                if shared.common.settings.trap_every.is_some_and(|messages| self.messages >= messages) {
                    shared.busy.doom();
                    shared.engine.increment_epoch();
                }
            }
            tokio::select! { biased;
                Some(done) = self.calls.next() => {
                    match done? {
                        Done::Publish(id) => self.in_flight.retain(|call| call.id != id),
                        Done::Feed => self.feeds -= 1,
                        Done::Other => {}
                    }
                }
                Some(order) = retire.recv() => match self.irreplaceable() {
                    Some(why) => drop(order.send(Err(why))),
                    None => {
                        // In the queue before it is free: whoever serves next finds them first.
                        jobs.give_back(backlog.drain(..));
                        drop(jobs);
                        // Whoever asked cannot give up: it is the supervisor.
                        order.send(Ok(())).ok();
                        return self.retire(shared).await;
                    }
                },
                count = jobs.recv_many(&mut taken, JOBS_PER_TURN), if backlog.len() < BACKLOG_JOBS_MAX => {
                    if count == 0 {
                        self.close().await?;
                        return Ok(End::Closed(Closing(None)));
                    }
                }
                _ = clock.tick(), if !self.in_flight.is_empty() => {
                    let now = Instant::now();
                    if self.in_flight.iter().any(|call| now > call.deadline + OVERDUE_MAX) {
                        return Ok(End::Hung("a publish call has no answer long after its deadline"));
                    }
                }
            }
            for job in taken.drain(..) {
                match job {
                    BrokerJob::Publish(job) => backlog.push_back(job),
                    BrokerJob::Subscribe(job) => self.subscribe(job, shared),
                    BrokerJob::Ping(reply) => self.ping(reply),
                    BrokerJob::Close(reply) => {
                        self.close().await?;
                        return Ok(End::Closed(Closing(Some(reply))));
                    }
                }
            }
        }
    }

    /// Whether another publish call may start. A few at once keep the broker's pipeline full; more would only make
    /// batches small. But no slow call holds up the others for long.
    fn has_room(&self) -> bool {
        let count = self.in_flight.len();
        if self.features.topic_flow {
            return count < TOPIC_CALLS_MAX;
        }
        let oldest = self.in_flight.first().map_or(Duration::ZERO, |call| call.started.elapsed());
        count < CALLS_MAX || (count < SLOW_CALLS_MAX && oldest > CALL_SLOW)
    }

    /// Starts one call with as many of the waiting publishes as fit.
    fn publish(&mut self, backlog: &mut VecDeque<PublishJob>) {
        let alone = self.features.topic_flow && self.feeds > 0;
        let batch = take_batch(backlog, &self.features, alone);
        let Some(deadline) = batch.iter().map(|job| job.deadline).max() else { return };
        self.messages += batch.iter().map(|job| job.messages.len() as u64).sum::<u64>();
        let id = self.next;
        self.next += 1;
        self.in_flight.push(InFlight { id, started: Instant::now(), deadline });
        let (store, guest, connection) = (self.store, self.guest, self.connection);
        let max_batch = self.features.max_batch as usize;
        self.calls.push(Box::pin(async move {
            publish(store, guest, connection, batch, deadline, max_batch).await?;
            Ok(Done::Publish(id))
        }));
    }

    fn subscribe(&mut self, job: SubscribeJob, shared: &Shared<'a>) {
        let (store, guest, connection) = (self.store, self.guest, self.connection);
        self.feeds += 1;
        let topic_flow = self.features.topic_flow;
        let leave = self.leave.child_token();
        let (places, number) = (&shared.common.places, shared.number);
        self.calls.push(Box::pin(async move {
            let _place = places.take(number, Arc::clone(&job.topic), job.group.clone()).await;
            feed::subscribe(store, guest, connection, job, topic_flow, leave).await?;
            Ok(Done::Feed)
        }));
    }

    fn ping(&mut self, reply: oneshot::Sender<Result<(), BrokerError>>) {
        let (store, guest, connection) = (self.store, self.guest, self.connection);
        self.calls.push(Box::pin(async move {
            let answer = guest.whimbrel_pubsub_broker().connection().call_ping(store, connection).await?;
            reply.send(answer.map_err(convert::failure)).ok();
            Ok(Done::Other)
        }));
    }

    /// Lets calls finish, then closes the connection; what hangs is left behind after a while.
    async fn close(&mut self) -> wasmtime::Result<()> {
        let calls = &mut self.calls;
        let in_flight = &mut self.in_flight;
        let finish = async {
            while !in_flight.is_empty() {
                match calls.next().await {
                    Some(Ok(Done::Publish(id))) => in_flight.retain(|call| call.id != id),
                    Some(Ok(Done::Feed | Done::Other)) => {}
                    Some(Err(error)) => return Err(error),
                    None => break,
                }
            }
            // Subscriptions whose feed is still held end with the connection.
            self.guest.whimbrel_pubsub_broker().connection().call_close(self.store, self.connection).await
        };
        match tokio::time::timeout(CLOSE_WAIT, finish).await {
            Ok(closed) => closed?,
            Err(_) => tracing::warn!("an adapter did not close in time, and is dropped"),
        }
        Ok(())
    }

    /// Why no other instance may take over: what an adapter holds whose broker is not durable may live in this very
    /// instance, and nobody can tell when it has nothing left (decision 0010).
    fn irreplaceable(&self) -> Option<String> {
        let used = self.messages > 0 || self.feeds > 0;
        (used && !self.features.durable).then(|| {
            "the running adapter is not durable: the messages it holds would be lost with it. It serves on; the new file \
             is taken when the host starts again"
                .to_owned()
        })
    }

    /// Waits for all calls that are under way.
    async fn finish(&mut self, shared: &Shared<'_>) -> wasmtime::Result<()> {
        let mut clock = tokio::time::interval(CALL_SLOW);
        loop {
            shared.busy.reset();
            tokio::select! {
                biased;
                done = self.calls.next() => match done {
                    Some(done) => {
                        done?;
                    }
                    None => return Ok(()),
                },
                _ = clock.tick() => {}
            }
        }
    }

    /// Finishes what is in hand: publishes that were given to the adapter, and subscriptions until they have moved. Then
    /// closes.
    async fn retire(&mut self, shared: &Shared<'_>) -> wasmtime::Result<End> {
        self.leave.cancel();
        match tokio::time::timeout(RETIRE_WAIT, self.finish(shared)).await {
            Ok(finished) => finished?,
            Err(_) => tracing::warn!("an adapter that was replaced did not finish in time, and is closed as it is"),
        }
        // What is still open ends with the connection.
        self.in_flight.clear();
        self.close().await?;
        Ok(End::Retired)
    }
}

/// Takes waiting publishes for one call: up to the batch limit; of one topic if they may wait for its subscribers, and
/// only one where there are any, for a call's results come together and no publisher may wait for another's subscriber.
fn take_batch(backlog: &mut VecDeque<PublishJob>, features: &Features, alone: bool) -> Vec<PublishJob> {
    let now = Instant::now();
    let mut batch: Vec<PublishJob> = Vec::new();
    let (mut messages, mut bytes) = (0, 0);
    while let Some(job) = backlog.front() {
        let more = jobs::bytes(job);
        let other_topic = features.topic_flow
            && batch.first().is_some_and(|first| {
                first.messages.iter().chain(&job.messages).any(|message| message.topic != first.messages[0].topic)
            });
        let full = messages + job.messages.len() > features.max_batch as usize || bytes + more > CALL_BYTES_MAX;
        if !batch.is_empty() && (alone || other_topic || full) {
            break;
        }
        let Some(job) = backlog.pop_front() else { break };
        // Nobody waits for it any more, and it was never sent.
        if job.deadline > now && !job.reply.is_closed() && !job.messages.is_empty() {
            messages += job.messages.len();
            bytes += more;
            batch.push(job);
        }
    }
    batch
}

/// One call (more, if a single job is larger than a call may be), and its results back to who waits.
async fn publish(
    store: &Accessor<State>,
    guest: &BrokerAdapter,
    connection: ResourceAny,
    batch: Vec<PublishJob>,
    deadline: Instant,
    max_batch: usize,
) -> wasmtime::Result<()> {
    let total = batch.iter().map(|job| job.messages.len()).sum();
    let (mut messages, mut replies) = (Vec::with_capacity(total), Vec::with_capacity(batch.len()));
    for job in batch {
        replies.push((job.messages.len(), job.reply));
        messages.extend(job.messages.into_iter().map(convert::message));
    }
    let calls = guest.whimbrel_pubsub_broker().connection();
    let mut results = Vec::with_capacity(total);
    while !messages.is_empty() {
        let rest = messages.split_off(messages.len().min(max_batch));
        let asked = messages.len();
        let answers = calls.call_publish(store, connection, messages, convert::until(deadline)).await?;
        results.extend(answers.into_iter().map(|result| result.map_err(convert::failure)));
        if results.len() != total - rest.len() {
            tracing::error!(asked, "bug of an adapter: a publish call gave another number of results");
            break;
        }
        messages = rest;
    }
    if results.len() != total {
        results = vec![Err(BrokerError::Unknown("the adapter gave another number of results".to_owned())); total];
    }
    let mut results = results.into_iter();
    for (count, reply) in replies {
        // Who waited may have given up at its deadline.
        reply.send(results.by_ref().take(count).collect()).ok();
    }
    Ok(())
}

/// Takes the connection's news to whoever watches the broker.
struct ToState {
    voice: Arc<Voice>,
    losses: Arc<AtomicU64>,
    places: Places,
}

impl ToState {
    fn new(shared: &Shared<'_>) -> Self {
        let common = shared.common;
        Self { voice: Arc::clone(shared.voice), losses: Arc::clone(&common.losses), places: common.places.clone() }
    }

    fn tell(&self, status: wit::Status) {
        let broker = self.voice.broker.as_str();
        match status {
            wit::Status::Ready => {
                tracing::info!(broker, "connected");
                self.voice.tell(BrokerState::Ready);
            }
            wit::Status::Connecting(why) => {
                let why = crate::log::cut(&why);
                tracing::warn!(broker, "connecting: {why}");
                self.voice.tell(BrokerState::Connecting(why));
            }
            wit::Status::DataLoss(what) => {
                self.losses.fetch_add(1, Ordering::Relaxed);
                tracing::error!(broker, "the broker may have lost messages: {}", crate::log::cut(&what));
            }
            wit::Status::Lag(lag) => {
                tracing::debug!(broker, topic = lag.topic, group = lag.group, messages = lag.messages, "lag");
                self.places.lag(&lag.topic, &lag.group, lag.messages);
            }
        }
    }
}

impl StreamConsumer<State> for ToState {
    type Item = wit::Status;

    fn poll_consume(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        mut store: StoreContextMut<'_, State>,
        mut source: Source<'_, wit::Status>,
        _: bool,
    ) -> std::task::Poll<wasmtime::Result<StreamResult>> {
        let mut news = Vec::with_capacity(source.remaining(&mut store));
        source.read(&mut store, &mut news)?;
        for status in news {
            self.tell(status);
        }
        std::task::Poll::Ready(Ok(StreamResult::Completed))
    }
}

#[cfg(test)]
mod tests;
