//! Subscriptions: what a group's member reads, and how it comes to the host.
//!
//! ```text
//! fetch ──► batches ──► partition (its window says what is done) ──► feed ──► host
//!                                     ▲                                        │
//!                                     └──────────── subscription (ledger) ◄────┘
//! ```
//!
//! Called by the adapter itself. Who reads which partition is `group`'s part.

mod batches;
mod feed;
mod fetch;
mod lag;
mod leaders;
mod ledger;
pub(crate) mod partition;
mod reset;
pub(crate) mod subscription;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use whimbrel_sdk::{DeliverySink, Failure, SubscribeOptions, task, timer};

use crate::cluster::{Cluster, Lane, To};
use crate::config::Settings;
use crate::failure::may_not_read;
use crate::group::{Member, last_commit};
use fetch::Fetcher;
use ledger::HELD_MAX;
use partition::Partition;
pub use subscription::KafkaSubscription;
use subscription::Sub;
use whimbrel_sdk::signal::Signal;

/// How long subscribing may take: joining a group takes as long as its slowest member. Below the host's patience.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(50);

/// How long the first look at a topic may take.
const TOPIC_WAIT: Duration = Duration::from_secs(20);

/// How long stopping waits for the broker.
const STOP_WAIT: Duration = Duration::from_secs(4);

/// Memberships of one connection, at most: each has a connection of its own.
const MEMBERS_MAX: usize = 256;

/// What all subscriptions of one connection share.
pub(crate) struct Consumers {
    pub(crate) cluster: Rc<Cluster>,
    /// Settlements that came too late to mean anything.
    pub(crate) stale: Cell<u64>,
    /// Partitions may be without a leader.
    leaderless: Signal,
    members: RefCell<Vec<Rc<Member>>>,
    fetchers: RefCell<BTreeMap<i32, Rc<Fetcher>>>,
    serial: Cell<u64>,
    number: Cell<u32>,
    has_begun: Cell<bool>,
    is_closed: Cell<bool>,
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers").finish_non_exhaustive()
    }
}

impl Consumers {
    /// Nothing is subscribed yet, and nothing runs.
    pub(crate) fn new(cluster: Rc<Cluster>) -> Rc<Self> {
        Rc::new(Self {
            cluster,
            stale: Cell::new(0),
            leaderless: Signal::default(),
            members: RefCell::default(),
            fetchers: RefCell::default(),
            serial: Cell::new(1),
            number: Cell::new(0),
            has_begun: Cell::new(false),
            is_closed: Cell::new(false),
        })
    }

    /// Subscribes a group to a topic; returns once its member has joined and knows where it begins.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) async fn subscribe(
        self: &Rc<Self>,
        topic: String,
        group: String,
        options: SubscribeOptions,
        sink: DeliverySink,
    ) -> Result<KafkaSubscription, Failure> {
        if group.is_empty() || options.max_unsettled == 0 {
            return Err(Failure::Invalid("a subscription needs a group and room for one message".to_owned()));
        }
        let known = self.count_partitions(&topic).await?;
        let limit = usize::try_from(options.max_unsettled).unwrap_or(HELD_MAX).min(HELD_MAX);
        let start = options.start.unwrap_or(self.settings().initial_offset);
        let sub = Sub::new(topic, limit, start, known);
        let member = self.member(group, &sub.topic)?;
        member.add(Rc::clone(&sub));
        let subscription = KafkaSubscription { hub: Rc::clone(self), member, sub };
        if let Err(failure) = is_ready(&subscription.sub).await {
            self.stop(&subscription.member, &subscription.sub).await;
            return Err(failure);
        }
        let (hub, member, sub) = (Rc::clone(self), Rc::clone(&subscription.member), Rc::clone(&subscription.sub));
        task::spawn(async move {
            if feed::feed(&hub, &sub, sink).await {
                hub.stop(&member, &sub).await;
            }
        });
        Ok(subscription)
    }

    /// Ends a subscription: what is done is committed, and the rest is free for others at once.
    pub(crate) async fn stop(&self, member: &Rc<Member>, sub: &Rc<Sub>) {
        sub.is_live.set(false);
        sub.ended.raise();
        let partitions = sub.partitions.borrow().clone();
        partitions.iter().for_each(|partition| partition.is_ours.set(false));
        let farewell = async {
            last_commit(member).await;
            partitions.iter().for_each(|partition| sub.forget(partition));
            if member.remove(sub) {
                member.has_left().await;
            }
        };
        if timer::timeout(STOP_WAIT, farewell).await.is_none() {
            partitions.iter().for_each(|partition| sub.forget(partition));
            member.remove(sub);
        }
        self.members.borrow_mut().retain(|other| !other.subs.borrow().is_empty());
        self.wake_fetchers();
    }

    /// Ends all subscriptions.
    pub(crate) async fn close(&self) {
        join_all(self.subs().iter().map(|(member, sub)| self.stop(member, sub))).await;
        self.is_closed.set(true);
        self.leaderless.raise();
        self.wake_fetchers();
    }

    /// What the resource says.
    pub(crate) fn settings(&self) -> &Settings {
        self.cluster.settings()
    }

    /// Whether the connection is closed.
    fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// The next number for a token.
    fn next_serial(&self) -> u64 {
        self.serial.replace(self.serial.get() + 1)
    }

    /// All subscriptions, and whose they are.
    fn subs(&self) -> Vec<(Rc<Member>, Rc<Sub>)> {
        let members = self.members.borrow();
        let of = |member: &Rc<Member>| {
            let subs = member.subs.borrow();
            subs.values().map(|sub| (Rc::clone(member), Rc::clone(sub))).collect::<Vec<_>>()
        };
        members.iter().flat_map(of).collect()
    }

    /// All partitions that are read, and whose they are.
    fn owned(&self) -> Vec<(Rc<Sub>, Rc<Partition>)> {
        let of = |(_, sub): (Rc<Member>, Rc<Sub>)| {
            let partitions = sub.partitions.borrow().clone();
            partitions.into_iter().filter(|one| one.is_ours.get()).map(|one| (Rc::clone(&sub), one)).collect::<Vec<_>>()
        };
        self.subs().into_iter().flat_map(of).collect()
    }

    /// There may be more to fetch.
    pub(crate) fn wake_fetchers(&self) {
        self.fetchers.borrow().values().for_each(|fetcher| fetcher.wake.raise());
    }

    /// The same; a broker that nothing was fetched from so far has a fetcher from now on.
    fn start_fetchers(self: &Rc<Self>) {
        for leader in self.owned().iter().filter_map(|(_, partition)| partition.leader.get()) {
            self.fetchers.borrow_mut().entry(leader).or_insert_with(|| {
                let fetcher = Fetcher::new(leader);
                task::spawn(Rc::clone(&fetcher).run(Rc::clone(self)));
                fetcher
            });
        }
        self.wake_fetchers();
    }

    /// Whether a broker leads anything that is read.
    fn reads_from(&self, broker: i32) -> bool {
        self.owned().iter().any(|(_, partition)| partition.leader.get() == Some(broker))
    }

    /// The fetcher of a broker has ended. With the last one its connections go, too.
    fn has_fetched(&self, broker: i32) {
        let mut fetchers = self.fetchers.borrow_mut();
        fetchers.remove(&broker);
        if fetchers.is_empty() {
            self.cluster.hang_up(Lane::Fetch);
        }
    }

    /// Looks for the leaders of partitions that have none.
    pub(crate) fn find_leaders(&self) {
        self.leaderless.raise();
    }

    /// A partition's leader has moved, or nobody knows who it is.
    fn has_no_leader(&self, partition: &Partition) {
        if partition.leader.take().is_some() {
            self.cluster.forget(&To::Leader { topic: partition.topic.clone(), partition: partition.id });
        }
        self.leaderless.raise();
    }

    /// How many partitions a topic has that the user may read; none where there is no such topic, which may come.
    async fn count_partitions(&self, topic: &str) -> Result<i32, Failure> {
        let found = self.cluster.topic(topic, TOPIC_WAIT).await?.unwrap_or_default();
        if !found.is_empty() && !self.cluster.may_read(topic, TOPIC_WAIT).await? {
            return Err(may_not_read(topic));
        }
        Ok(i32::try_from(found.len()).unwrap_or(i32::MAX))
    }

    /// The membership for one more subscription of a group to a topic. It is another one where the group has that topic
    /// already, so that both share its partitions.
    fn member(self: &Rc<Self>, group: String, topic: &str) -> Result<Rc<Member>, Failure> {
        if !self.has_begun.replace(true) {
            task::spawn(leaders::run(Rc::clone(self)));
            task::spawn(lag::run(Rc::clone(self)));
        }
        let mut members = self.members.borrow_mut();
        if let Some(member) = members.iter().find(|member| member.group == group && member.has_room_for(topic)) {
            return Ok(Rc::clone(member));
        }
        if members.len() >= MEMBERS_MAX {
            return Err(Failure::Permanent(format!("more than {MEMBERS_MAX} groups on one component")));
        }
        // Never used twice: one that leaves hangs up after the next one has come.
        let number = self.number.replace(self.number.get() + 1);
        let member = Member::new(self, group, number);
        members.push(Rc::clone(&member));
        task::spawn(Rc::clone(&member).run());
        Ok(member)
    }
}

async fn is_ready(sub: &Sub) -> Result<(), Failure> {
    let waiting = async {
        while !sub.is_ready.get() && sub.is_live.get() {
            sub.readied.wait().await;
        }
    };
    let in_time = timer::timeout(SUBSCRIBE_WAIT, waiting).await.is_some();
    match sub.failure.take() {
        Some(failure) => Err(failure),
        None if in_time => Ok(()),
        None => Err(Failure::Transient(format!(
            "the group was not joined within {SUBSCRIBE_WAIT:?}: its coordinator does not answer, or other members \
             do not join"
        ))),
    }
}
