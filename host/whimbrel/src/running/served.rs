//! The subscriptions that run, each a task of its own, and how they become those that are wanted: what is the same goes on,
//! what has other rules goes on under them, the rest stops in good order or begins. Called by `running`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whimbrel_pubsub::{Live, Subscription, Topology, deliver};
use whimbrel_resources::{SubscriptionChange, subscription_change};

use super::Ground;

/// Which subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The handler component it is for; none: the app.
    pub(super) handler: Option<String>,
    pub(super) pubsub: String,
    pub(super) topic: String,
}

/// One that runs.
struct Task {
    subscription: Subscription,
    live: Arc<Live>,
    stop: CancellationToken,
    /// Cancelled when it has ended, in good order or not.
    ended: CancellationToken,
}

/// See the module.
pub(super) struct Served {
    topology: Arc<ArcSwap<Topology>>,
    tracker: TaskTracker,
    stopping: CancellationToken,
    tasks: HashMap<Key, Task>,
    /// Those that were told to stop and have not ended, as far as it is known.
    ending: Vec<(Key, CancellationToken)>,
}

/// What has to be done.
#[derive(Default)]
pub(super) struct Change {
    stop: Vec<Key>,
    begin: Vec<(Key, Subscription)>,
    /// Of those that begin: which may not wait until the one before has ended.
    overlap: HashSet<Key>,
    /// Other rules, or another handler.
    alter: Vec<(Key, Subscription)>,
    /// Those that are declared otherwise.
    changed: HashSet<Key>,
}

impl Change {
    /// Whether it is declared otherwise than before.
    pub(super) fn touches(&self, key: &Key) -> bool {
        self.changed.contains(key)
    }

    /// Whether it is not there yet.
    pub(super) fn begins(&self, key: &Key) -> bool {
        self.begin.iter().any(|(begun, _)| begun == key)
    }
}

impl Served {
    pub(super) fn new(ground: &Ground) -> Self {
        Self {
            topology: Arc::clone(&ground.topology),
            tracker: ground.tasks.clone(),
            stopping: ground.stopping.clone(),
            tasks: HashMap::new(),
            ending: Vec::new(),
        }
    }

    /// What makes those that run into those that are wanted, while the topology becomes another: the brokers in `replaced`
    /// go, those in `fresh` come.
    pub(super) fn compare(
        &self,
        wanted: Vec<(Key, Subscription)>,
        old: &Topology,
        next: &Topology,
        replaced: &HashSet<String>,
        fresh: &HashSet<String>,
    ) -> Change {
        let mut change = Change::default();
        let keys: HashSet<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
        change.stop.extend(self.tasks.keys().filter(|key| !keys.contains(key)).cloned());
        for (key, new) in wanted {
            let Some(task) = self.tasks.get(&key) else {
                change.begin.push((key, new));
                continue;
            };
            let declared = subscription_change(&task.subscription.declared, &new.declared);
            if declared.is_some() {
                change.changed.insert(key.clone());
            }
            let moves = replaced.contains(&key.pubsub) || fresh.contains(&key.pubsub);
            let was_allowed = task.subscription.broker(old).is_ok();
            let is_allowed = new.broker(next).is_ok();
            if moves
                || declared == Some(SubscriptionChange::Feed)
                || was_allowed != is_allowed
                || task.subscription.caller.app_id != new.caller.app_id
                || task.subscription.group != new.group
            {
                let features = next.brokers.get(&key.pubsub).and_then(|broker| broker.features.get());
                if was_allowed && is_allowed && features.is_some_and(|features| !features.durable) {
                    change.overlap.insert(key.clone());
                } else {
                    change.stop.push(key.clone());
                }
                change.begin.push((key, new));
            } else if declared.is_some() || !task.subscription.handler.is(&new.handler) {
                change.alter.push((key, new));
            }
        }
        change
    }

    /// Lets go what does not stay. It ends in its own time.
    pub(super) fn stop(&mut self, change: &Change) {
        self.ending.retain(|(_, ended)| !ended.is_cancelled());
        for key in &change.stop {
            if let Some(task) = self.tasks.remove(key) {
                task.stop.cancel();
                self.ending.push((key.clone(), task.ended));
            }
        }
    }

    /// Begins and alters the others. Returns when all are live or after this wait, with those that are not.
    pub(super) async fn carry_out(&mut self, change: Change, wait: Duration) -> Vec<oneshot::Receiver<()>> {
        for (key, subscription) in change.alter {
            if let Some(task) = self.tasks.get_mut(&key) {
                task.live.change(subscription.clone());
                task.subscription = subscription;
            }
        }
        let mut waiting = Vec::new();
        let mut before = Vec::new();
        for (key, subscription) in change.begin {
            if let Some(task) = self.tasks.remove(&key) {
                before.push((key.clone(), task));
            }
            let overlaps = change.overlap.contains(&key);
            waiting.push(self.begin(key, subscription, overlaps));
        }
        let until = Instant::now() + wait;
        let mut late = Vec::new();
        for mut ready in waiting {
            // One that ends without an answer was stopped.
            if timeout_at(until, &mut ready).await.is_err() {
                late.push(ready);
            }
        }
        for (key, task) in before {
            task.stop.cancel();
            self.ending.push((key, task.ended));
        }
        late
    }

    /// Those of a component that were told to stop.
    pub(super) fn ended(&self, pubsub: &str) -> Vec<CancellationToken> {
        let of_component = self.ending.iter().filter(|(key, _)| key.pubsub == pubsub);
        of_component.map(|(_, ended)| ended.clone()).collect()
    }

    /// Starts a task. It subscribes when the one before has ended, for both may be the same consumer at the broker; where
    /// the broker keeps nothing for a subscriber that is away, it does not wait, and for a moment both have what comes.
    fn begin(&mut self, key: Key, subscription: Subscription, overlaps: bool) -> oneshot::Receiver<()> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, ended) = (self.stopping.child_token(), CancellationToken::new());
        let live = Arc::new(Live::new(subscription.clone()));
        let before: Vec<_> = self.ending.iter().filter(|(ending, _)| *ending == key && !overlaps).collect();
        let before: Vec<_> = before.into_iter().map(|(_, ended)| ended.clone()).collect();
        let serving = deliver(Arc::clone(&live), Arc::clone(&self.topology), ready, stop.clone());
        let (stopped, has_ended) = (stop.clone(), ended.clone().drop_guard());
        // The tracker is what stopping waits for.
        drop(self.tracker.spawn(async move {
            let _has_ended = has_ended;
            for one in before {
                one.cancelled().await;
            }
            if !stopped.is_cancelled() {
                Box::pin(serving).await;
            }
        }));
        self.tasks.insert(key, Task { subscription, live, stop, ended });
        is_ready
    }
}
