//! The life of one subscription's feed: opened, served, left or lost and opened again, drained. Called by `deliver`.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::batch::{Gathering, due};
use crate::broker::{Arrived, Feed, FeedJob};
use crate::delivery::{Delivery, Disposition};
use crate::error::BrokerError;
use crate::events;
use crate::group::Admission;
use crate::policy::Doubling;
use crate::settle::{Exit, settle};

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
    /// Where deliveries go several at a time: those that have begun to wait for one another.
    gathering: Option<Gathering>,
}

/// What is carried at a time.
pub(super) enum Load {
    /// A delivery.
    One(Delivery),
    /// Several, each to its own end.
    Batch(Vec<Delivery>),
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
    carry: impl Fn(&'a Context, Load) -> F,
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
                events::subscribed(&context.subscription());
                let since = Instant::now();
                match serve(context, running, feed, &mut waits, &carry).await {
                    Over::Stopped(served) => return Some(served),
                    Over::Left => {
                        waits.reset();
                        continue;
                    }
                    Over::Lost(error) => events::feed_lost(&context.subscription(), &error),
                }
                if since.elapsed() > SOUND_AFTER {
                    waits.reset();
                }
            }
            Err(Unopened::Failed(error)) => events::not_subscribed(&context.subscription(), &error),
            Err(Unopened::Never(why)) => {
                events::never_subscribed(&context.subscription(), &why);
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
    let subscription = context.subscription();
    let declared = &subscription.declared;
    let broker = subscription.broker(&topology).map_err(Unopened::Never)?;
    let (topic, group) = (declared.topic.as_str().into(), subscription.group.clone());
    let opening = broker.subscribe(topic, group, context.concurrency.unsettled, None, declared.metadata.clone());
    opening.await.map_err(Unopened::Failed)
}

/// Takes what comes, and runs as much of it at once as the subscription allows.
async fn serve<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    feed: Feed,
    waits: &mut Doubling,
    carry: &impl Fn(&'a Context, Load) -> F,
) -> Over {
    let leave = feed.leave.clone();
    let admission = Admission::new(context.concurrency, context.keys.clone(), context.places.clone());
    let mut served = Served { feed, admission, gathering: Gathering::of(context) };
    let mut stopped = pin!(context.stopping.stop.cancelled());
    loop {
        served.begin(context, running, carry);
        let gathering = served.gathering.as_ref();
        tokio::select! {
            biased;
            () = &mut stopped => {
                served.hurry(context, running, carry);
                return Over::Stopped(served);
            }
            () = leave.cancelled() => return move_on(context, running, served, carry).await,
            Some(()) = running.next(), if !running.is_empty() => {}
            batch = served.feed.deliveries.recv(), if served.admission.has_room() => match batch {
                Some(batch) => {
                    waits.reset();
                    served.admission.line_up(batch);
                }
                None => break,
            },
            () = due(gathering) => {}
            // A batch frees its places one by one.
            () = context.places.freed(), if gathering.is_some() => {}
        }
    }
    // What runs goes on: it may finish, and what cannot be settled any more comes again. What waits would be twice as
    // late.
    let Served { mut feed, mut admission, gathering } = served;
    hold(context, gathering.into_iter().flat_map(Gathering::rest)).await;
    hold(context, unbegun(&feed.jobs, admission.rest())).await;
    let lost = || BrokerError::Transient("the adapter was lost".to_owned());
    Over::Lost(feed.ended.try_recv().unwrap_or_else(|_| lost()))
}

impl Served {
    /// Begins what has arrived, as much as the subscription allows at once.
    fn begin<'a, F: Future<Output = ()>>(
        &mut self,
        context: &'a Context,
        running: &mut FuturesUnordered<F>,
        carry: &impl Fn(&'a Context, Load) -> F,
    ) {
        let Self { feed: Feed { jobs, leave, .. }, admission, gathering } = self;
        while let Some((arrived, place)) = admission.admit() {
            let delivery = Delivery::new(arrived, jobs.clone(), leave.clone()).in_place(place);
            let load = match gathering {
                None => Some(Load::One(delivery)),
                Some(gathering) => gathering.add(delivery).map(Load::Batch),
            };
            running.extend(load.map(|load| carry(context, load)));
        }
        let batch = gathering.as_mut().and_then(Gathering::take_due);
        running.extend(batch.map(|batch| carry(context, Load::Batch(batch))));
    }

    /// Begins at once what waits for a batch to fill, from now on.
    fn hurry<'a, F: Future<Output = ()>>(
        &mut self,
        context: &'a Context,
        running: &mut FuturesUnordered<F>,
        carry: &impl Fn(&'a Context, Load) -> F,
    ) {
        let batch = self.gathering.as_mut().and_then(Gathering::hurry);
        running.extend(batch.map(|batch| carry(context, Load::Batch(batch))));
    }
}

/// Leaves a feed in good order: stop fetching, finish what was fetched and settle it there, end the subscription. Only
/// then may another be opened, for both may be the same consumer at the broker. A stop that comes meanwhile goes first.
async fn move_on<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    mut served: Served,
    carry: &impl Fn(&'a Context, Load) -> F,
) -> Over {
    let jobs = served.feed.jobs.clone();
    served.admission.leave();
    served.hurry(context, running, carry);
    let mut stopped = pin!(context.stopping.stop.cancelled());
    let emptied = timeout(LEAVE_WAIT, empty(context, running, &mut served, carry));
    tokio::select! {
        biased;
        () = &mut stopped => return Over::Stopped(served),
        // In time or not: what still runs goes on.
        _ = emptied => {}
    }
    events::feed_left(&context.subscription(), running.len());
    hold(context, unbegun(&jobs, served.admission.rest())).await;
    let stopping = meanwhile(running, ask(&jobs, FeedJob::Stop, STOP_WAIT));
    holding(context, &jobs, &mut served.feed.deliveries, stopping).await;
    Over::Left
}

/// Pauses a feed, and carries what it still brings until nothing runs and nothing comes.
async fn empty<'a, F: Future<Output = ()>>(
    context: &'a Context,
    running: &mut FuturesUnordered<F>,
    served: &mut Served,
    carry: &impl Fn(&'a Context, Load) -> F,
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
            () = context.places.freed(), if served.gathering.is_some() => {}
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
    let Some(Served { feed, mut admission, .. }) = served else { return finish(context, running).await };
    let Feed { mut deliveries, jobs, .. } = feed;
    hold(context, unbegun(&jobs, admission.rest())).await;
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

/// Waits until nothing runs.
pub(super) async fn all<F: Future<Output = ()>>(running: &mut FuturesUnordered<F>) {
    while running.next().await.is_some() {}
}

/// Waits for a future while what runs goes on.
pub(super) async fn meanwhile<T, F: Future<Output = ()>>(
    running: &mut FuturesUnordered<F>,
    future: impl Future<Output = T>,
) -> T {
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
            Some(batch) = deliveries.recv() => hold(context, unbegun(jobs, batch.into_iter())).await,
        }
    }
}

/// Deliveries that nobody is going to begin.
fn unbegun(jobs: &mpsc::Sender<FeedJob>, arrived: impl Iterator<Item = Arrived>) -> impl Iterator<Item = Delivery> {
    arrived.map(|arrived| Delivery::new(arrived, jobs.clone(), CancellationToken::new()))
}

/// Leaves with the broker what was not begun.
async fn hold(context: &Context, deliveries: impl Iterator<Item = Delivery>) {
    let (topology, subscription) = (context.topology.load_full(), context.subscription());
    for delivery in deliveries {
        context.ledger.hold(&delivery.id, delivery.count);
        let exit = Exit {
            topology: &topology,
            subscription: &subscription,
            counts: &context.counts,
            dead_letter_topic: None,
            event_id: "",
            attempt: 0,
            stopping: &context.stopping,
        };
        settle(exit, delivery, Disposition::Hold).await;
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
