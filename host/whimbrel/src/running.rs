//! What runs, by name, and how it becomes what is declared. Owned by one task (`reload::resources`), which awaits what it
//! asks for here, one thing after the other.
//!
//! First everything that may fail is opened beside what runs; then what runs is changed, and nothing fails any more. What is
//! the same before and after is not touched.

mod opened;
mod served;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whimbrel_api::{App, Doors};
use whimbrel_pubsub::{Caller, Handler, Topology};
use whimbrel_resources::{Diff, Snapshot, Subscription as Declared, diff};
use whimbrel_wasm::{BrokerState, Loader};

use crate::brokers::Started;
use crate::handlers::Pool;
use crate::plugins::Search;
use crate::reload::{Followers, Replaceable};
use crate::subscriptions::{self, Own};

use opened::Opened;
use served::{Key, Served};

/// Each broker and how it stands, in the order of the resources.
pub(crate) type States = Arc<ArcSwap<Vec<(String, watch::Receiver<BrokerState>)>>>;

/// How long a broker that was taken out may be held open by who still publishes to it: longer than a publish may take.
const RETIRED_WAIT: Duration = Duration::from_secs(45);

/// How long a reload waits for what it has subscribed to be live before it says that it is done.
const LIVE_WAIT: Duration = Duration::from_secs(5);

/// What stays the same as long as the process lives.
pub(crate) struct Ground {
    pub(crate) caller: Caller,
    /// The app and where its events go. None: there is no app port.
    pub(crate) app: Option<(Arc<App>, Handler)>,
    /// Whether the app is asked what it subscribes to.
    pub(crate) ask: bool,
    pub(crate) loader: Loader,
    pub(crate) search: Arc<Search>,
    pub(crate) followers: Followers,
    /// Names this process.
    pub(crate) instance: String,
    pub(crate) topology: Arc<ArcSwap<Topology>>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) states: States,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// A broker that runs; its handle is the topology's.
struct Adapter {
    state: watch::Receiver<BrokerState>,
    /// Cancelled when nobody is to look after its file any more.
    retired: CancellationToken,
}

/// See the module.
pub(crate) struct Running {
    ground: Ground,
    snapshot: Snapshot,
    own: Own,
    /// Whether the app takes connections.
    reached: bool,
    adapters: HashMap<String, Adapter>,
    pools: HashMap<String, Pool>,
    served: Served,
    /// What the metadata API shows, in its order.
    listed: Vec<Key>,
}

impl Running {
    /// What was started; nothing is subscribed to yet.
    pub(crate) fn new(ground: Ground, snapshot: Snapshot, started: Vec<Started>, pools: HashMap<String, Pool>) -> Self {
        let served = Served::new(&ground);
        let mut running = Self {
            ground,
            snapshot,
            own: Own::Unasked,
            reached: false,
            adapters: HashMap::new(),
            pools,
            served,
            listed: Vec::new(),
        };
        for Started { broker, state, replaceable } in started {
            running.adopt(broker.declared.name.clone(), state, replaceable);
        }
        running.show_states();
        running
    }

    /// Subscribes for the handlers. Each of the receivers answers when its subscription is live, or is not to be.
    pub(crate) async fn begin(&mut self) -> Vec<oneshot::Receiver<()>> {
        self.settle(Opened::default(), Duration::ZERO).await
    }

    /// The app takes connections: asks it, and subscribes for it.
    pub(crate) async fn app_reached(&mut self) -> Vec<oneshot::Receiver<()>> {
        self.reached = true;
        // From here on the order counts.
        self.listed.clear();
        if !self.ground.ask {
            tracing::info!("Skipping programmatic subscription loading");
        }
        self.settle(Opened::default(), Duration::ZERO).await
    }

    /// What is declared, as it was taken last.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Makes what runs like a snapshot, and says what was different. `None`: nothing.
    ///
    /// # Errors
    /// Something cannot be opened: what runs is as it was.
    pub(crate) async fn become_like(&mut self, snapshot: Snapshot) -> anyhow::Result<Option<Diff>> {
        let found = diff(&self.snapshot, &snapshot);
        let opened = self.open(&snapshot).await?;
        if found.is_empty() && opened.is_empty() {
            self.snapshot = snapshot;
            return Ok(None);
        }
        let known: HashSet<String> = self.snapshot.warnings.iter().map(ToString::to_string).collect();
        for warning in snapshot.warnings.iter().map(ToString::to_string).filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.snapshot = snapshot;
        if found.policies {
            let metrics = &self.ground.topology.load().environment.metrics;
            metrics.resiliencies_loaded(&self.snapshot.resiliencies);
        }
        self.settle(opened, LIVE_WAIT).await;
        Ok(Some(found))
    }

    /// Makes what is subscribed to, and what is shown, as it is to be with these adapters and pools. Nothing fails here.
    /// What is not live within the wait is returned.
    async fn settle(&mut self, opened: Opened, wait: Duration) -> Vec<oneshot::Receiver<()>> {
        let Opened { brokers, pools } = opened;
        self.pools.retain(|name, _| self.snapshot.handlers.iter().any(|handler| handler.name == *name));
        self.pools.extend(pools);
        self.ask().await;
        let old = self.ground.topology.load_full();
        let fresh: HashSet<String> = brokers.iter().map(|started| started.broker.declared.name.clone()).collect();
        let next = Arc::new(self.topology(&old, &brokers));
        let gone = |name: &String| fresh.contains(name) || !next.brokers.contains_key(name);
        let replaced: HashSet<String> = old.brokers.keys().filter(|name| gone(name)).cloned().collect();

        let wanted = self.wanted();
        let served =
            wanted.iter().filter_map(|(key, declared)| Some((key.clone(), self.serves(key, declared, &next)?)));
        let change = self.served.compare(served.collect(), &old, &next, &replaced, &fresh);
        let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
        let listed = whimbrel_resources::order(&self.listed, &keys, |key| change.touches(key));
        let wanted: HashMap<Key, Arc<Declared>> = wanted.into_iter().collect();
        let shown = |keys: &mut dyn Iterator<Item = &Key>| keys.filter_map(|key| wanted.get(key).cloned()).collect();

        self.served.stop(&change);
        self.ground.topology.store(Arc::clone(&next));
        let before: HashSet<&Key> = self.listed.iter().collect();
        let at_once = shown(&mut listed.iter().filter(|key| before.contains(key) || !change.begins(key)));
        self.ground.doors.subscriptions.store(Arc::new(at_once));
        self.ground.doors.resiliencies.store(Arc::new(self.snapshot.resiliencies.clone()));
        let late = self.served.carry_out(change, wait).await;
        self.ground.doors.subscriptions.store(Arc::new(shown(&mut listed.iter())));
        self.listed = listed;

        for name in &replaced {
            self.retire(name, &old);
        }
        for Started { broker, state, replaceable } in brokers {
            self.adopt(broker.declared.name.clone(), state, replaceable);
        }
        self.show_states();
        late
    }

    /// The topology with these brokers in it, and those that stay declared as they are now.
    fn topology(&self, old: &Topology, opened: &[Started]) -> Topology {
        let opened: HashMap<&str, &Started> =
            opened.iter().map(|started| (started.broker.declared.name.as_str(), started)).collect();
        let mut brokers = HashMap::new();
        for component in &self.snapshot.components {
            let broker = match (opened.get(component.name.as_str()), old.brokers.get(&component.name)) {
                (Some(started), _) => started.broker.clone(),
                (None, Some(running)) => running.redeclared(Arc::clone(component)),
                // Left out, as its ignoreErrors says.
                (None, None) => continue,
            };
            brokers.insert(component.name.clone(), broker);
        }
        Topology { environment: old.environment.clone(), brokers, policies: self.snapshot.policies.clone() }
    }

    /// What is to be shown: the app's, then the handlers'.
    fn wanted(&self) -> Vec<(Key, Arc<Declared>)> {
        let key = |handler: Option<&String>, declared: &Declared| Key {
            handler: handler.cloned(),
            pubsub: declared.pubsub.clone(),
            topic: declared.topic.clone(),
        };
        let app = self.own.merged(&self.snapshot.subscriptions).into_iter();
        let app = app.map(|declared| (key(None, &declared), declared));
        let handlers = self.snapshot.handlers.iter().flat_map(|handler| {
            let of_handler = handler.subscriptions.iter();
            of_handler.map(|declared| (key(Some(&handler.name), declared), Arc::clone(declared)))
        });
        let mut seen = HashSet::new();
        app.chain(handlers).filter(|(key, _)| seen.insert(key.clone())).collect()
    }

    /// A subscription as it is to be served; `None`: there is nobody to deliver to.
    fn serves(
        &self,
        key: &Key,
        declared: &Arc<Declared>,
        topology: &Topology,
    ) -> Option<whimbrel_pubsub::Subscription> {
        match &key.handler {
            Some(handler) => Some(self.pools.get(handler)?.subscription(declared)),
            None => {
                let (_, handler) = self.ground.app.as_ref().filter(|_| self.reached)?;
                Some(subscriptions::of_app(declared, topology, &self.ground.caller, handler))
            }
        }
    }

    /// Asks the app once, when it is there and there is a component that it could subscribe to.
    async fn ask(&mut self) {
        let Some((app, _)) = self.ground.app.as_ref().filter(|_| self.reached && self.ground.ask) else { return };
        if matches!(self.own, Own::Unasked) && !self.snapshot.components.is_empty() {
            self.own = subscriptions::ask(app, &self.snapshot.policies.discovery).await;
        }
    }

    fn adopt(&mut self, name: String, state: watch::Receiver<BrokerState>, replaceable: Replaceable) {
        let retired = self.ground.stopping.child_token();
        self.ground.followers.follow(replaceable, retired.clone());
        self.adapters.insert(name, Adapter { state, retired });
    }

    /// Lets a broker close in good order: when its subscriptions have ended and nobody publishes to it any more.
    fn retire(&mut self, name: &str, old: &Topology) {
        let (Some(adapter), Some(broker)) = (self.adapters.remove(name), old.brokers.get(name)) else { return };
        adapter.retired.cancel();
        if !self.ground.topology.load().brokers.contains_key(name) {
            broker.forget_breaker();
        }
        if broker.features.get().is_some_and(|features| !features.durable) {
            tracing::warn!(component = name, "its broker is not durable: what it still holds ends with it");
        }
        let (name, broker, mut state) = (name.to_owned(), broker.clone(), adapter.state);
        let ended = self.served.ended(&name);
        drop(self.ground.tasks.spawn(async move {
            for subscription in ended {
                subscription.cancelled().await;
            }
            let handle = broker.downgrade();
            drop(broker);
            let closed = state.wait_for(|state| *state == BrokerState::Closed);
            if tokio::time::timeout(RETIRED_WAIT, closed).await.is_err() {
                handle.close().await;
            }
            tracing::info!(component = name, "component closed");
        }));
    }

    fn show_states(&self) {
        let state = |name: &String| Some((name.clone(), self.adapters.get(name)?.state.clone()));
        let states = self.snapshot.components.iter().filter_map(|component| state(&component.name));
        self.ground.states.store(Arc::new(states.collect()));
    }
}
