//! The life of one subscription's feed: opened, served, left or lost and opened again, drained. Called by `deliver`.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::broker::{Arrived, Feed, FeedJob};
use crate::delivery::{Delivery, Disposition};
use crate::error::BrokerError;
use crate::group::Admission;
use crate::policy::Doubling;
use crate::settle::{Exit, settle};
use crate::{events, scope};

/// The first wait before subscribing again; it doubles up to [`SUBSCRIBE_WAIT_MAX`], without an end.
const SUBSCRIBE_WAIT_MIN: Duration = Duration::from_millis(500);

/// The longest wait before subscribing again.
const SUBSCRIBE_WAIT_MAX: Duration = Duration::from_secs(60);

/// A feed that lived for so long was sound, even if nothing came on it: the waits begin again after it.
const SOUND_AFTER: Duration = Duration::from_secs(5);

/// How long an adapter may take to stop fetching. Past it the drain begins nevertheless; what still comes is held.
const PAUSE_WAIT: Duration = Duration::from_secs(5);

/// How long what is in flight may take to finish when the host stops.
const DRAIN_WAIT: Duration = Duration::from_secs(30);

/// How long settlements that are on their way when the drain time is over may still take.
const LAST_SETTLEMENTS_WAIT: Duration = Duration::from_secs(2);

/// How long an adapter may take to end a subscription.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// How long what is in hand may take to finish when a feed is left. What takes longer goes on, and comes again.
const LEAVE_WAIT: Duration = Duration::from_secs(30);

/// How long a paused adapter stays silent before it has nothing fetched in hand any more.
const SILENCE: Duration = Duration::from_millis(20);

/// A feed with what arrived on it and was not begun.
pub(super) struct Served {
    feed: Feed,
    admission: Admission,
}

/// Why a feed is served no more.
enum Over {
    /// The subscription is to stop.
    Stopped(Served),
    /// The adapter's instance is replaced: there is another feed to be had at once.
    Left,
    /// It ended by itself.
    Lost(BrokerError),
}

/// Why there is no feed.
enum Unopened {
    /// There will be none.
    Never(String),
    /// Not now.
    Failed(BrokerError),
}

/// Opens feeds, one after the other, and serves them until the stop. The one that was open then, if any.
pub(super) async fn serve_all<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    ready: &mut Option<oneshot::Sender<()>>,
    carry: impl Fn(&'a Context, Delivery) -> F,
) -> Option<Served> {
    let mut waits = Doubling::new(SUBSCRIBE_WAIT_MIN, SUBSCRIBE_WAIT_MAX);
    let mut stopped = pin!(context.stopping.stop.cancelled());
    loop {
        let opened = tokio::select! {
            biased;
            () = &mut stopped => return None,
            opened = meanwhile(running, open(context)) => opened,
        };
        if let Ok(_) | Err(Unopened::Never(_)) = opened {
            tell(ready);
        }
        match opened {
            Ok(feed) => {
                events::subscribed(&context.subscription);
                let since = Instant::now();
                match serve(context, running, feed, &mut waits, &carry).await {
                    Over::Stopped(served) => return Some(served),
                    Over::Left => {
                        waits.reset();
                        continue;
                    }
                    Over::Lost(error) => events::feed_lost(&context.subscription, &error),
                }
                if since.elapsed() > SOUND_AFTER {
                    waits.reset();
                }
            }
            Err(Unopened::Failed(error)) => events::not_subscribed(&context.subscription, &error),
            Err(Unopened::Never(why)) => {
                events::never_subscribed(&context.subscription, &why);
                meanwhile(running, stopped).await;
                return None;
            }
        }
        let wait = waits.wait(&context.topology.load().environment.random);
        tokio::select! {
            biased;
            () = &mut stopped => return None,
            () = meanwhile(running, tokio::time::sleep(wait)) => {}
        }
    }
}

/// Tells who waits for the subscription to be ready, once. Whoever wanted to know may have given up.
pub(super) fn tell(ready: &mut Option<oneshot::Sender<()>>) {
    if let Some(ready) = ready.take() {
        ready.send(()).ok();
    }
}

async fn open(context: &Context) -> Result<Feed, Unopened> {
    let topology = context.topology.load_full();
    let (declared, caller) = (&context.subscription.declared, &context.subscription.caller);
    let Some(broker) = topology.broker(&declared.pubsub, caller) else {
        return Err(Unopened::Never(format!("pubsub {} is not found", declared.pubsub)));
    };
    if !scope::allow_subscribe(&broker.declared.topic_scopes, &caller.app_id, &declared.topic) {
        return Err(Unopened::Never("the scopes do not let this app subscribe to this topic".to_owned()));
    }
    let (topic, group) = (declared.topic.as_str().into(), context.subscription.group.clone());
    let opening = broker.subscribe(topic, group, context.concurrency.unsettled, None, declared.metadata.clone());
    opening.await.map_err(Unopened::Failed)
}

/// Takes what comes, and runs as much of it at once as the subscription allows.
async fn serve<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    feed: Feed,
    waits: &mut Doubling,
    carry: &impl Fn(&'a Context, Delivery) -> F,
) -> Over {
    let leave = feed.leave.clone();
    let mut served = Served { feed, admission: Admission::new(context.concurrency, context.keys.clone()) };
    let mut stopped = pin!(context.stopping.stop.cancelled());
    loop {
        served.begin(context, running, carry);
        tokio::select! {
            biased;
            () = &mut stopped => return Over::Stopped(served),
            () = leave.cancelled() => return move_on(context, running, served, carry).await,
            Some(()) = running.next(), if !running.is_empty() => {}
            batch = served.feed.deliveries.recv(), if served.admission.has_room() => match batch {
                Some(batch) => {
                    waits.reset();
                    served.admission.line_up(batch);
                }
                None => break,
            },
        }
    }
    // What runs goes on: it may finish, and what cannot be settled any more comes again. What waits would be twice as
    // late.
    hold(context, &served.feed.jobs, served.admission.rest()).await;
    let lost = || BrokerError::Transient("the adapter was lost".to_owned());
    Over::Lost(served.feed.ended.try_recv().unwrap_or_else(|_| lost()))
}

impl Served {
    /// Begins what has arrived, as much as the subscription allows at once.
    fn begin<'a, F: Future<Output = ()>>(
        &mut self,
        context: &'a Context,
        running: &mut FuturesUnordered<F>,
        carry: &impl Fn(&'a Context, Delivery) -> F,
    ) {
        while let Some((arrived, turn)) = self.admission.admit(running.len()) {
            let Feed { jobs, leave, .. } = &self.feed;
            running.push(carry(context, Delivery::new(arrived, jobs.clone(), leave.clone()).in_turn(turn)));
        }
    }
}

/// Leaves a feed in good order: stop fetching, finish what was fetched and settle it there, end the subscription. Only
/// then may another be opened, for both may be the same consumer at the broker. A stop that comes meanwhile goes first.
async fn move_on<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    mut served: Served,
    carry: &impl Fn(&'a Context, Delivery) -> F,
) -> Over {
    let jobs = served.feed.jobs.clone();
    served.admission.leave();
    let mut stopped = pin!(context.stopping.stop.cancelled());
    let emptied = timeout(LEAVE_WAIT, empty(context, running, &mut served, carry));
    tokio::select! {
        biased;
        () = &mut stopped => return Over::Stopped(served),
        // In time or not: what still runs goes on.
        _ = emptied => {}
    }
    events::feed_left(&context.subscription, running.len());
    hold(context, &jobs, served.admission.rest()).await;
    let stopping = meanwhile(running, ask(&jobs, FeedJob::Stop, STOP_WAIT));
    holding(context, &jobs, &mut served.feed.deliveries, stopping).await;
    Over::Left
}

/// Pauses a feed, and carries what it still brings until nothing runs and nothing comes.
async fn empty<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    served: &mut Served,
    carry: &impl Fn(&'a Context, Delivery) -> F,
) {
    let jobs = served.feed.jobs.clone();
    let mut pausing = pin!(ask(&jobs, FeedJob::Pause, PAUSE_WAIT));
    let mut paused = false;
    loop {
        served.begin(context, running, carry);
        tokio::select! {
            biased;
            () = &mut pausing, if !paused => paused = true,
            Some(()) = running.next(), if !running.is_empty() => {}
            batch = served.feed.deliveries.recv(), if served.admission.has_room() => match batch {
                Some(batch) => served.admission.line_up(batch),
                // Its instance is gone: what runs goes on, as it does when a feed is lost.
                None => return,
            },
            () = tokio::time::sleep(SILENCE), if paused && running.is_empty() => return,
        }
    }
}

/// Stops in good order: stop fetching, let what runs finish and its settlements be confirmed, end the subscription.
pub(super) async fn drain<F: Future<Output = ()>>(
    context: &Context,
    running: &mut FuturesUnordered<F>,
    served: Option<Served>,
) {
    let Some(Served { feed, mut admission }) = served else { return finish(context, running).await };
    let Feed { mut deliveries, jobs, .. } = feed;
    hold(context, &jobs, admission.rest()).await;
    let draining = async {
        meanwhile(running, ask(&jobs, FeedJob::Pause, PAUSE_WAIT)).await;
        finish(context, running).await;
    };
    holding(context, &jobs, &mut deliveries, draining).await;
    holding(context, &jobs, &mut deliveries, ask(&jobs, FeedJob::Stop, STOP_WAIT)).await;
}

/// Lets what runs finish, and gives up on it when its time is over: it stays with the broker.
async fn finish<F: Future<Output = ()>>(context: &Context, running: &mut FuturesUnordered<F>) {
    if timeout(DRAIN_WAIT, all(running)).await.is_err() {
        context.stopping.abandoned.cancel();
        timeout(LAST_SETTLEMENTS_WAIT, all(running)).await.ok();
    }
}

async fn all<F: Future<Output = ()>>(running: &mut FuturesUnordered<F>) {
    while running.next().await.is_some() {}
}

/// Waits for a future while what runs goes on.
async fn meanwhile<T, F: Future<Output = ()>>(running: &mut FuturesUnordered<F>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            done = &mut future => return done,
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// Waits for a future while all that arrives is held.
async fn holding<T>(
    context: &Context,
    jobs: &mpsc::Sender<FeedJob>,
    deliveries: &mut mpsc::Receiver<Vec<Arrived>>,
    future: impl Future<Output = T>,
) -> T {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            done = &mut future => return done,
            Some(batch) = deliveries.recv() => hold(context, jobs, batch.into_iter()).await,
        }
    }
}

/// Leaves with the broker what was not begun.
async fn hold(context: &Context, jobs: &mpsc::Sender<FeedJob>, arrived: impl Iterator<Item = Arrived>) {
    let topology = context.topology.load_full();
    for arrived in arrived {
        context.ledger.hold(&arrived.id, arrived.count);
        let exit = Exit {
            topology: &topology,
            subscription: &context.subscription,
            counts: &context.counts,
            dead_letter_topic: None,
            event_id: "",
            attempt: 0,
            stopping: &context.stopping,
        };
        settle(exit, Delivery::new(arrived, jobs.clone(), CancellationToken::new()), Disposition::Hold).await;
    }
}

/// Gives a feed's worker an order, and waits for it to be carried out. A worker that is gone has carried it out.
async fn ask(jobs: &mpsc::Sender<FeedJob>, order: impl FnOnce(oneshot::Sender<()>) -> FeedJob, wait: Duration) {
    let (reply, done) = oneshot::channel();
    let asking = async {
        if jobs.send(order(reply)).await.is_ok() {
            // An end without an answer is an end.
            done.await.ok();
        }
    };
    if timeout(wait, asking).await.is_err() {
        tracing::warn!(wait_seconds = wait.as_secs(), "an adapter did not pause or stop a subscription in time");
    }
}
