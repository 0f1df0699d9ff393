//! One run: declare, publish, break things, calm down, and see whether everything came to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber as _;
use whimbrel_resources::{
    Backoff, Bulk, Component, Matching, Policies, Policy, Retry, Subscription as Declared, TopicScopes,
};

use super::log::Listener;
use super::world::{Key, Kind, NUMBER, Queue, Shared, World};
use super::{app, broker};
use crate::{Broker, Handler, PublishRequest, Subscription, Topology, fakes};

/// How long everything may take to come to its end once nothing goes wrong any more. Waits grow up to a minute.
const CALM_WAIT: Duration = Duration::from_secs(30 * 60);

/// How long an orderly stop may take: pause 5 s, drain 30 s, last settlements 2 s, stop 5 s.
const STOP_WAIT: Duration = Duration::from_secs(45);

/// What a run saw, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) trace: u64,
    pub(super) deliveries: u64,
    pub(super) failed_attempts: u64,
    pub(super) given_back: u64,
    pub(super) dead_lettered: u64,
    pub(super) refused: u64,
    pub(super) swallowed: u64,
    pub(super) stale: u64,
    pub(super) lost: u64,
    pub(super) stopped: u64,
    pub(super) killed: u64,
    pub(super) batched: u64,
}

impl Seen {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            trace: self.trace ^ other.trace,
            deliveries: self.deliveries + other.deliveries,
            failed_attempts: self.failed_attempts + other.failed_attempts,
            given_back: self.given_back + other.given_back,
            dead_lettered: self.dead_lettered + other.dead_lettered,
            refused: self.refused + other.refused,
            swallowed: self.swallowed + other.swallowed,
            stale: self.stale + other.stale,
            lost: self.lost + other.lost,
            stopped: self.stopped + other.stopped,
            killed: self.killed + other.killed,
            batched: self.batched + other.batched,
        }
    }

    pub(super) fn faults(self) -> [(&'static str, u64); 10] {
        [
            ("a failed attempt", self.failed_attempts),
            ("a message given back", self.given_back),
            ("a dead letter", self.dead_lettered),
            ("a refused publish", self.refused),
            ("a swallowed settlement", self.swallowed),
            ("a stale token", self.stale),
            ("a lost adapter", self.lost),
            ("an orderly stop", self.stopped),
            ("a killed host", self.killed),
            ("an event in a batch", self.batched),
        ]
    }
}

/// A listener that lives as long as this is kept.
pub(super) fn listening() -> tracing::Dispatch {
    tracing::Dispatch::new(Listener(Shared::new(0)))
}

/// Runs one seed.
pub(super) fn run(seed: u64) -> Seen {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
    runtime.block_on(async {
        let world = Shared::new(seed);
        let listener = Listener(world.clone());
        simulate(world.clone(), seed).with_subscriber(tracing::Dispatch::new(listener)).await;
        let mut world = world.lock();
        world.check_confirmed();
        if !world.violations.is_empty() {
            panic!("seed {seed}:\n{}\n{}", world.lines(), world.violations.join("\n"));
        }
        Seen { trace: world.trace_hash(), ..world.seen }
    })
}

/// The host's task of one subscription.
struct Host {
    subscription: Arc<Subscription>,
    stop: CancellationToken,
    kill: CancellationToken,
    task: JoinHandle<()>,
}

async fn simulate(world: Shared, seed: u64) {
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let (bus, jobs) = Broker::new(Arc::new(component(&mut world.lock())));
    tokio::spawn(broker::serve(world.clone(), jobs));
    let policies = policies(&mut world.lock());
    let attempts_max = policies.inbound("bus").retry.as_ref().map_or(Some(1), |retry| Some(retry.max_retries? + 1));
    let topology = Arc::new(ArcSwap::from_pointee(fakes::topology(bus, policies, seed ^ 0x5eed)));

    let subscriptions = declare(&world, attempts_max);
    let mut hosts: BTreeMap<Key, Host> = BTreeMap::new();
    for (key, subscription) in subscriptions {
        let host = start(&world, &key, subscription, &topology, &dispatch);
        hosts.insert(key, host);
    }
    let publishers: Vec<_> = (0..3)
        .map(|which| {
            let publishing = publish_all(world.clone(), Arc::clone(&topology), which);
            tokio::spawn(publishing.with_subscriber(dispatch.clone()))
        })
        .collect();
    chaos(&world, &mut hosts, &topology, &dispatch).await;
    for publisher in publishers {
        publisher.await.expect("a publisher panicked");
    }
    world.lock().calm = true;
    settle_down(&world).await;
    for (key, host) in hosts {
        stop(&world, &key, host).await;
    }
}

fn component(world: &mut World) -> Component {
    let mut topic_scopes = TopicScopes::default();
    if world.rng.u8(..8) == 0 {
        topic_scopes.protected.push("dead-a0".to_owned());
        world.forbidden = Some("dead-a0".to_owned());
    }
    fakes::component(topic_scopes)
}

fn policies(world: &mut World) -> Policies {
    let mut policy = || {
        let retry = match world.rng.u8(..4) {
            0 => None,
            1 => Some(Retry {
                backoff: Backoff::Exponential(Duration::from_secs(5)),
                max_retries: Some(world.rng.u32(0..4)),
                matching: Matching::default(),
            }),
            _ => {
                let wait = world.up_to(Duration::from_secs(2));
                Some(Retry {
                    backoff: Backoff::Constant(wait),
                    max_retries: Some(world.rng.u32(0..4)),
                    matching: Matching::default(),
                })
            }
        };
        Policy { timeout: world.rng.bool().then_some(Duration::from_millis(250)), retry, breaker: None }
    };
    Policies { inbound_default: policy(), outbound_default: policy(), ..Policies::default() }
}

/// One to three apps with one or two subscriptions each, one handler for each app.
fn declare(world: &Shared, attempts_max: Option<u32>) -> Vec<(Key, Arc<Subscription>)> {
    let mut subscriptions = Vec::new();
    let apps = world.lock().rng.u8(1..4);
    for app in (0..apps).map(|app| format!("a{app}")) {
        let (handler, jobs, batches) = Handler::with_batches();
        tokio::spawn(app::serve(world.clone(), app.clone(), jobs, batches));
        let mut drawn = world.lock();
        let topics = drawn.rng.u8(1..3);
        for topic in (0..topics).map(|topic| format!("t{topic}")) {
            let dead_letter_topic = (drawn.rng.u8(..5) > 1).then(|| format!("dead-{app}"));
            let max_unsettled = drawn.rng.u8(1..20).to_string();
            let bulk = (drawn.rng.u8(..3) == 0)
                .then(|| Bulk { max_messages: drawn.rng.u32(1..6), max_wait: drawn.up_to(Duration::from_millis(500)) });
            let metadata = [("maxUnsettled", max_unsettled.as_str())];
            let declared = Declared { bulk, ..fakes::declared(&topic, dead_letter_topic.as_deref(), &metadata) };
            let queue = Queue {
                entries: BTreeMap::new(),
                changed: Arc::new(Notify::new()),
                dead_letter_topic,
                attempts_max,
                incarnation: 0,
                stopped_at: None,
            };
            let key = (app.clone(), topic);
            drawn.queues.insert(key.clone(), queue);
            subscriptions.push((key, Arc::new(fakes::subscription(declared, &app, handler.clone()))));
        }
    }
    subscriptions
}

fn start(
    world: &Shared,
    key: &Key,
    subscription: Arc<Subscription>,
    topology: &Arc<ArcSwap<Topology>>,
    dispatch: &tracing::Dispatch,
) -> Host {
    {
        let mut world = world.lock();
        let queue = world.queues.get_mut(key).expect("declared");
        queue.incarnation += 1;
        queue.stopped_at = None;
        world.trace(&format!("start {key:?}"));
    }
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let (ready, _) = oneshot::channel();
    let live = Arc::new(crate::Live::new(Subscription::clone(&subscription)));
    let mut delivering = Box::pin(crate::deliver(live, Arc::clone(topology), ready, stop.clone()));
    let (killed, world) = (kill.clone(), world.clone());
    let life = async move {
        tokio::select! {
            biased;
            () = killed.cancelled() => {
                world.lock().killing = true;
                drop(delivering);
                world.lock().killing = false;
            }
            () = &mut delivering => {}
        }
    };
    Host { subscription, stop, kill, task: tokio::spawn(life.with_subscriber(dispatch.clone())) }
}

/// An orderly stop comes to its end in time.
async fn stop(world: &Shared, key: &Key, host: Host) {
    {
        let mut world = world.lock();
        world.seen.stopped += 1;
        world.trace(&format!("stop {key:?}"));
        world.queues.get_mut(key).expect("declared").stopped_at = Some(Instant::now());
    }
    host.stop.cancel();
    match timeout(STOP_WAIT, host.task).await {
        Ok(ended) => ended.expect("deliver panicked"),
        Err(_) => world.lock().violation(&format!("{key:?} does not stop")),
    }
}

async fn chaos(
    world: &Shared,
    hosts: &mut BTreeMap<Key, Host>,
    topology: &Arc<ArcSwap<Topology>>,
    dispatch: &tracing::Dispatch,
) {
    let blows = world.lock().rng.u8(3..9);
    for _ in 0..blows {
        world.dawdle(Duration::from_secs(3)).await;
        let (blow, which) = {
            let mut world = world.lock();
            (world.rng.u8(..10), world.rng.usize(..hosts.len()))
        };
        let key = hosts.keys().nth(which).expect("in range").clone();
        match blow {
            0..2 => lose_adapter(world),
            2..4 => lose_connection(world),
            4..6 => lose_feed(world, &key),
            6..8 => {
                let host = hosts.remove(&key).expect("just found");
                let subscription = Arc::clone(&host.subscription);
                stop(world, &key, host).await;
                world.dawdle(Duration::from_secs(1)).await;
                hosts.insert(key.clone(), start(world, &key, subscription, topology, dispatch));
            }
            _ => {
                let host = hosts.remove(&key).expect("just found");
                {
                    let mut world = world.lock();
                    world.seen.killed += 1;
                    world.trace(&format!("kill {key:?}"));
                }
                host.kill.cancel();
                host.task.await.expect("deliver panicked");
                hosts.insert(key.clone(), start(world, &key, host.subscription, topology, dispatch));
            }
        }
    }
}

fn lose_adapter(world: &Shared) {
    let mut world = world.lock();
    world.seen.lost += 1;
    world.trace("the adapter is lost");
    let lost = std::mem::take(&mut world.instance);
    drop(world);
    lost.cancel();
}

fn lose_connection(world: &Shared) {
    let mut world = world.lock();
    world.trace("the connection is lost");
    world.reconnect.notify_waiters();
}

fn lose_feed(world: &Shared, key: &Key) {
    let feed = {
        let mut world = world.lock();
        world.trace(&format!("the feed of {key:?} is lost"));
        world.feeds.get(key).cloned()
    };
    if let Some(feed) = feed {
        feed.cancel();
    }
}

async fn publish_all(world: Shared, topology: Arc<ArcSwap<Topology>>, which: u32) {
    let count = world.lock().rng.u32(2..10);
    for number in (0..count).map(|number| which * 100 + number) {
        world.dawdle(Duration::from_secs(2)).await;
        let request = {
            let mut world = world.lock();
            let kind = match world.rng.u8(..12) {
                0 => Kind::Expiring,
                1 => Kind::Poison,
                _ => Kind::Plain,
            };
            world.published.insert(number, kind);
            let topic = format!("t{}", world.rng.u8(..2));
            request(&topic, number, kind)
        };
        let published = crate::publish(&topology.load_full(), request).await;
        let mut world = world.lock();
        world.trace(&format!("publish {number}: {published:?}"));
        if published.is_ok() {
            world.confirmed.insert(number);
        }
    }
}

fn request(topic: &str, number: u32, kind: Kind) -> PublishRequest {
    let (number, id) = (number.to_string(), format!("event-{number}"));
    let option = match kind {
        Kind::Plain => ("x", "y"),
        Kind::Expiring => ("ttlInSeconds", "1"),
        Kind::Poison => ("rawPayload", "true"),
    };
    fakes::request(topic, "some text", &[(NUMBER, &number), ("cloudevent.id", &id), option])
}

/// Waits until nothing is left to do.
async fn settle_down(world: &Shared) {
    let begun = Instant::now();
    loop {
        let left = world.lock().left();
        if left.is_empty() {
            return;
        }
        if begun.elapsed() > CALM_WAIT {
            return world.lock().violation(&format!("never came to an end: {left:?}"));
        }
        sleep(Duration::from_secs(1)).await;
    }
}
