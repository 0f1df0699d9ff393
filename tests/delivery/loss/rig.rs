//! What all loss runs have in common: the broker, one or more hosts with their apps, the publishers, the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::app::App;
use crate::harness::host::{Host, HostPlan};
use crate::harness::ledger::{Ledger, Report, Rules, Says, Subscriber, recognise};
use crate::harness::load::publish_all;
use crate::harness::redis::Redis;
use crate::harness::{Test, resource, until_within};

/// How long a whole run may take before it counts as stuck.
pub(crate) const RUN_MAX: Duration = Duration::from_secs(600);

/// How long the last message may take to arrive, or the next fault to find enough to strike. Longer than any lease,
/// backoff or restart of these runs.
const ARRIVAL_MAX: Duration = Duration::from_secs(300);

/// How long between two looks at the dead-letter topic at the end of a run.
const DEAD_LETTERS_EVERY: Duration = Duration::from_millis(300);

/// The topic of every run.
pub(crate) const TOPIC: &str = "orders";

/// One subscribing app, with the host that delivers to it.
pub(crate) struct Side {
    pub(crate) host: Host,
    pub(crate) subscriber: Arc<Subscriber>,
    dead: String,
    /// Dropping it ends it. A handler component needs none.
    pub(crate) app: Option<App>,
}

/// A subscriber that has no side yet, so that the ledger can be made before the hosts are started. Hosts of one app id
/// share it.
#[derive(Clone)]
pub(crate) struct Waiting {
    app_id: String,
    subscriber: Arc<Subscriber>,
}

impl Waiting {
    /// The app takes so long for each event.
    pub(crate) fn slow(&self, wait: Duration) {
        self.subscriber.slow(wait);
    }
}

/// One run.
pub(crate) struct Rig {
    pub(crate) redis: Redis,
    pub(crate) ledger: Arc<Ledger>,
    publishers: Option<JoinHandle<Result<()>>>,
    pub(crate) seed: u64,
    faults: u64,
    shares_opened: u64,
}

/// What the subscribers of these runs say: some messages are dropped, some fail at first, most succeed.
pub(crate) fn says(n: u64, arrivals_before: u64) -> Says {
    match (n % 40, arrivals_before) {
        (3 | 17 | 31, _) => Says::Drop,
        (5, 0) => Says::Retry,
        (6, 0) => Says::Fails,
        _ => Says::Done,
    }
}

impl Rig {
    /// A run with so many faults and these subscribing apps.
    pub(crate) async fn new(test: &Test, faults: u64, app_ids: &[&str]) -> Result<(Self, Vec<Waiting>)> {
        Self::with(test, faults, app_ids, |_| String::new()).await
    }

    /// The same, with more in the messages' bodies (see [`Ledger::new`]).
    pub(crate) async fn with(
        test: &Test,
        faults: u64,
        app_ids: &[&str],
        more: fn(u64) -> String,
    ) -> Result<(Self, Vec<Waiting>)> {
        let rules = Rules::full();
        let mut waiting = vec![];
        for app_id in app_ids {
            let log = test.folder(&format!("app-{app_id}"))?.join("log");
            let subscriber = Arc::new(Subscriber::new(app_id, log, &rules, test.seed, says)?);
            waiting.push(Waiting { app_id: (*app_id).to_owned(), subscriber });
        }
        let subscribers = waiting.iter().map(|one| Arc::clone(&one.subscriber)).collect();
        let ledger = Arc::new(Ledger::new(test.seed, rules, subscribers, more));
        let redis = Redis::start(test).await?;
        Ok((Self { redis, ledger, publishers: None, seed: test.seed, faults, shares_opened: 0 }, waiting))
    }

    /// What every host of these runs declares: the broker `bus`, and how often a delivery is tried.
    pub(crate) fn plan(test: &Test, app_id: &str, broker: &str) -> Result<HostPlan> {
        let plan = test.host(app_id)?.resource(broker)?;
        let policies = "{retries: {again: {policy: constant, duration: 50ms, maxRetries: 3}}}";
        plan.resource(resource::inbound("bus", policies, "{retry: again}"))
    }

    /// Starts the app and the host of a subscriber.
    pub(crate) async fn side(test: &Test, waiting: Waiting, broker: &str) -> Result<Side> {
        Self::side_with(test, waiting, broker, Ok).await
    }

    /// The same with a host that is planned otherwise.
    pub(crate) async fn side_with(
        test: &Test,
        waiting: Waiting,
        broker: &str,
        change: impl FnOnce(HostPlan) -> Result<HostPlan>,
    ) -> Result<Side> {
        let Waiting { app_id, subscriber } = waiting;
        let app = App::start().await?;
        app.count("/in", &subscriber);
        let dead = dead_letters_of(&app_id);
        let subscription = resource::subscription("bus", TOPIC, "/in", Some(&dead));
        let plan = Self::plan(test, &app_id, broker)?.resource(subscription)?.app(&app);
        let host = change(plan)?.start().await?;
        Ok(Side { host, subscriber, dead, app: Some(app) })
    }

    /// Starts the host of a subscriber that needs no app.
    pub(crate) async fn side_without_app(waiting: Waiting, plan: HostPlan) -> Result<Side> {
        let Waiting { app_id, subscriber } = waiting;
        Ok(Side { host: plan.start().await?, subscriber, dead: dead_letters_of(&app_id), app: None })
    }

    /// Lets the publishers loose on the host that listens at this address.
    pub(crate) fn publish(&mut self, to: watch::Receiver<Option<SocketAddr>>) {
        let publishers = publish_all(Arc::clone(&self.ledger), to, format!("bus/{TOPIC}"));
        self.publishers = Some(tokio::spawn(publishers));
    }

    /// Messages between two faults.
    pub(crate) fn share(&self) -> u64 {
        self.ledger.messages() / (self.faults + 1)
    }

    /// Lets the publishers send the next share.
    pub(crate) fn open_share(&mut self) {
        self.shares_opened += 1;
        self.ledger.allow(self.share() * self.shares_opened);
    }

    /// Lets the publishers send the next share, and returns when so many of its messages are sent.
    pub(crate) async fn in_the_middle(&mut self, of_share: u64) -> Result<()> {
        let mark = self.share() * self.shares_opened + of_share;
        self.open_share();
        let what = format!("{mark} messages to be sent");
        until_within(ARRIVAL_MAX, &what, async || (self.ledger.sent() >= mark).then_some(())).await
    }

    /// Lets the publishers finish, waits until everything has arrived, and closes the ledger.
    pub(crate) async fn finish(&mut self, sides: &[Side]) -> Result<Report> {
        self.ledger.allow(self.ledger.messages());
        let publishers = self.publishers.take().context("nobody published")?;
        let published = tokio::time::timeout(ARRIVAL_MAX, publishers).await;
        let arrived = self.arrive(sides).await;
        let report = self.ledger.close();
        // The ledger's verdict says more than what was waited for in vain; but that is a failure too.
        let report = report?;
        published.context("the publishers did not finish")???;
        arrived?;
        Ok(report)
    }

    async fn arrive(&self, sides: &[Side]) -> Result<()> {
        let settled = async || {
            for side in sides {
                side.subscriber.found_dead(self.dead_letters(&side.dead).await.ok()?);
            }
            if self.ledger.quiet() && sides.iter().all(|side| side.subscriber.dropped_are_dead()) {
                return Some(());
            }
            tokio::time::sleep(DEAD_LETTERS_EVERY).await;
            None
        };
        until_within(ARRIVAL_MAX, "everything to arrive", settled).await
    }

    /// The numbers in a dead-letter topic. One that is no message of this run becomes a phantom.
    async fn dead_letters(&self, topic: &str) -> Result<Vec<u64>> {
        let entries = self.redis.entries(topic).await?;
        Ok(entries.iter().map(|entry| recognise(self.seed, &entry.data).unwrap_or(u64::MAX)).collect())
    }
}

/// The dead-letter topic of an app.
pub(crate) fn dead_letters_of(app_id: &str) -> String {
    format!("dead-{app_id}")
}
