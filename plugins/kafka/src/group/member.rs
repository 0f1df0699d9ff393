//! One membership in a group, for all topics that its subscriptions name: the spine that joins, stays, joins again and
//! leaves. It runs apart from everything that a handler could hold up.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::pin_mut;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, LeaveGroupRequest};
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{log, task, timer};

use super::assignors::Strategy;
use super::commits::{self, Commits};
use super::refusal::Refusal;
use super::{join, ownership, watch};
use crate::cluster::{Lane, To};
use crate::consume::Consumers;
use crate::consume::partition::Partition;
use crate::consume::subscription::Sub;
use whimbrel_sdk::signal::Signal;

/// Topics that are subscribed to one after the other are joined with together: the first waits this long for the others.
const TOPICS_WAIT: Duration = Duration::from_millis(200);

/// After a heartbeat that was not answered, the next one comes sooner.
const BEAT_AGAIN: Duration = Duration::from_millis(500);

/// How long saying goodbye may take.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// A version that leaves by a list of members.
const LEAVE_LIST_VERSION: i16 = 3;

/// What a partition is called.
pub(super) type Name = (String, i32);

/// See the module.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) group: String,
    /// Tells apart the memberships of one connection: each has a connection for its joins.
    pub(crate) lane: Lane,
    pub(crate) hub: Rc<Consumers>,
    pub(crate) subs: RefCell<BTreeMap<String, Rc<Sub>>>,
    /// What the group calls this member; empty before it was told.
    pub(super) id: RefCell<String>,
    pub(super) generation: Cell<i32>,
    /// How often it joined.
    pub(super) joins: Cell<u64>,
    pub(super) is_joining: Cell<bool>,
    /// How partitions are assigned in this generation.
    pub(super) strategy: Cell<Option<Strategy>>,
    pub(crate) owned: RefCell<BTreeMap<Name, Rc<Partition>>>,
    /// The topics it has joined with.
    pub(super) joined: RefCell<BTreeSet<String>>,
    /// Topics and how many partitions each had when it joined.
    pub(super) shape: RefCell<BTreeMap<String, usize>>,
    pub(crate) commits: Commits,
    /// Whoever waits for messages of partitions that are given up.
    settled: RefCell<Vec<Rc<Signal>>>,
    change: Signal,
    /// Since when the topics are others than those it joined with.
    topics_changed: Cell<Option<Instant>>,
    must_join: Cell<bool>,
    loss: RefCell<Option<String>>,
    is_closing: Cell<bool>,
    leavers: RefCell<Vec<oneshot::Sender<()>>>,
    /// The last trouble that was logged: a coordinator that stays away must not fill the log.
    told: RefCell<String>,
}

impl Member {
    /// A membership that [`run`](Self::run) begins.
    pub(crate) fn new(hub: &Rc<Consumers>, group: String, number: u32) -> Rc<Self> {
        Rc::new(Self {
            group,
            lane: Lane::Group(number),
            hub: Rc::clone(hub),
            subs: RefCell::default(),
            id: RefCell::default(),
            generation: Cell::new(-1),
            joins: Cell::new(0),
            is_joining: Cell::new(false),
            strategy: Cell::new(None),
            owned: RefCell::default(),
            joined: RefCell::default(),
            shape: RefCell::default(),
            commits: Commits::default(),
            settled: RefCell::default(),
            change: Signal::default(),
            topics_changed: Cell::new(None),
            must_join: Cell::new(false),
            loss: RefCell::default(),
            is_closing: Cell::new(false),
            leavers: RefCell::default(),
            told: RefCell::default(),
        })
    }

    /// Whether a subscription to this topic may join it.
    pub(crate) fn has_room_for(&self, topic: &str) -> bool {
        !self.is_closing.get() && !self.subs.borrow().contains_key(topic)
    }

    /// One more topic.
    pub(crate) fn add(&self, sub: Rc<Sub>) {
        self.subs.borrow_mut().insert(sub.topic.clone(), sub);
        self.topics_have_changed();
    }

    /// One topic less; the last one ends the membership. True: it was the last.
    pub(crate) fn remove(&self, sub: &Rc<Sub>) -> bool {
        let mut subs = self.subs.borrow_mut();
        if subs.get(&sub.topic).is_some_and(|other| Rc::ptr_eq(other, sub)) {
            subs.remove(&sub.topic);
        }
        let is_last = subs.is_empty();
        drop(subs);
        self.owned.borrow_mut().retain(|(topic, _), _| *topic != sub.topic);
        self.notice_settled();
        if is_last {
            self.is_closing.set(true);
            self.change.raise();
        } else {
            self.topics_have_changed();
        }
        is_last
    }

    /// Returns when it has left the group.
    pub(crate) async fn has_left(&self) {
        let (sender, left) = oneshot::channel();
        self.leavers.borrow_mut().push(sender);
        self.change.raise();
        // Dropped or sent: either way it is over.
        left.await.ok();
    }

    /// Whether it has a place in the group, so that it may commit.
    pub(super) fn is_joined(&self) -> bool {
        self.generation.get() >= 0
    }

    /// Whether it ends.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Joins again, when it is convenient.
    pub(super) fn join_again(&self) {
        self.must_join.set(true);
        self.change.raise();
    }

    /// The group has told somebody else here that this member is not one any more.
    pub(super) fn notice_loss(&self, why: &str) {
        self.loss.replace(Some(why.to_owned()));
        self.change.raise();
    }

    /// A message was settled, or is none of ours any more.
    pub(crate) fn notice_settled(&self) {
        let mut settled = self.settled.borrow_mut();
        settled.retain(|waiter| Rc::strong_count(waiter) > 1);
        settled.iter().for_each(|waiter| waiter.raise());
    }

    /// Raised at each [`notice_settled`](Self::notice_settled) for as long as it is kept.
    pub(super) fn settlements(&self) -> Rc<Signal> {
        let waiter = Rc::new(Signal::default());
        self.settled.borrow_mut().push(Rc::clone(&waiter));
        waiter
    }

    /// How long any answer may take.
    pub(super) fn answer_wait(&self) -> Duration {
        self.hub.settings().answer_wait()
    }

    /// What there is to commit; it counts as committed from here on.
    pub(super) fn take_dirty(&self) -> Vec<Rc<Partition>> {
        let owned = self.owned.borrow();
        owned.values().filter(|partition| partition.is_dirty.take()).cloned().collect()
    }

    /// The membership, from the first join to the goodbye.
    pub(crate) async fn run(self: Rc<Self>) {
        task::spawn(commits::run(Rc::clone(&self)));
        task::spawn(watch::run(Rc::clone(&self)));
        let mut trouble = Backoff::default();
        while !self.is_closing.get() {
            let Err(refusal) = self.round().await else {
                trouble.reset();
                continue;
            };
            if refusal == Refusal::Rebalance {
                // That somebody else comes at the same time is no trouble.
                trouble.reset();
            }
            self.meet(refusal);
            timer::timeout(trouble.next_wait(), self.change.wait()).await;
        }
        self.leave().await;
        self.commits.close();
        self.hub.cluster.hang_up(self.lane);
        self.leavers.take();
    }

    /// Joins, takes up what it was given, and stays until something changes.
    async fn round(self: &Rc<Self>) -> Result<(), Refusal> {
        if self.topics_changed.get().is_some() && !self.is_joined() {
            timer::sleep(TOPICS_WAIT).await;
        }
        if self.is_closing.get() {
            return Ok(());
        }
        ownership::prepare(self).await?;
        self.topics_changed.set(None);
        self.must_join.set(false);
        let part = join::join(self).await?;
        self.told.borrow_mut().clear();
        // What was said of an earlier membership.
        self.loss.take();
        ownership::take_up(self, part).await?;
        self.stay().await
    }

    /// Stays a member until it must join again, or ends.
    async fn stay(&self) -> Result<(), Refusal> {
        let every = self.hub.settings().heartbeat;
        let mut beat_at = timer::now() + every;
        loop {
            let rejoin_at = self.topics_changed.get().map(|since| since + TOPICS_WAIT);
            let now = timer::now();
            if self.is_closing.get() || self.must_join.get() || rejoin_at.is_some_and(|at| at <= now) {
                return Ok(());
            }
            if let Some(why) = self.loss.take() {
                return Err(Refusal::Lost(why));
            }
            if beat_at <= now {
                beat_at = match self.beat().await {
                    Ok(()) => timer::now() + every,
                    Err(Refusal::Rebalance) => return Ok(()),
                    Err(Refusal::Lost(why)) => return Err(Refusal::Lost(why)),
                    Err(refusal) => {
                        self.tell(&refusal.text());
                        timer::now() + every.min(BEAT_AGAIN)
                    }
                };
                continue;
            }
            let until = rejoin_at.map_or(beat_at, |at| at.min(beat_at));
            timer::timeout(until.saturating_duration_since(now), self.change.wait()).await;
        }
    }

    /// Waits for something that takes its time, and stays a member meanwhile.
    pub(super) async fn beat_while(&self, work: impl Future<Output = ()>) -> Result<(), Refusal> {
        let every = self.hub.settings().heartbeat;
        let beating = async {
            loop {
                timer::sleep(every).await;
                if let Err(Refusal::Lost(why)) = self.beat().await {
                    return Refusal::Lost(why);
                }
            }
        };
        pin_mut!(work);
        pin_mut!(beating);
        match select(work, beating).await {
            Either::Left(((), _)) => Ok(()),
            Either::Right((refusal, _)) => Err(refusal),
        }
    }

    async fn beat(&self) -> Result<(), Refusal> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation.get())
            .with_member_id(self.member_id());
        let to = self.coordinator();
        let answer =
            self.hub.cluster.call(&to, self.lane, request, self.answer_wait()).await.map_err(Refusal::of_call)?;
        self.read_code(answer.error_code)
    }

    /// Goodbye: its partitions are free for others at once.
    async fn leave(&self) {
        if self.id.borrow().is_empty() {
            return;
        }
        let request = |version: i16| {
            let request = LeaveGroupRequest::default().with_group_id(self.group_id());
            if version < LEAVE_LIST_VERSION {
                return request.with_member_id(self.member_id());
            }
            request.with_members(vec![MemberIdentity::default().with_member_id(self.member_id())])
        };
        let to = self.coordinator();
        let leaving = self.hub.cluster.call_with::<LeaveGroupRequest, _>(&to, self.lane, LEAVE_WAIT, request);
        // If nobody hears it, the session runs out.
        leaving.await.ok();
        self.generation.set(-1);
    }

    /// What an error code means; forgets who coordinates the group where that is what it says.
    pub(super) fn read_code(&self, code: i16) -> Result<(), Refusal> {
        let read = Refusal::of(code, &self.group);
        if matches!(read, Err(Refusal::Elsewhere(_))) {
            self.hub.cluster.forget(&self.coordinator());
        }
        read
    }

    /// A round came to nothing.
    fn meet(&self, refusal: Refusal) {
        if let Refusal::Lost(_) = &refusal {
            ownership::lose(self);
        }
        if let Refusal::Rebalance = &refusal {
            return;
        }
        self.tell(&refusal.text());
        if let Refusal::Fatal(failure) = refusal {
            let subs: Vec<Rc<Sub>> = self.subs.borrow().values().cloned().collect();
            subs.iter().filter(|sub| !sub.is_ready.get()).for_each(|sub| sub.fail(failure.clone()));
        }
    }

    fn tell(&self, what: &str) {
        if *self.told.borrow() != what {
            log::warn(&format!("membership in group {:?}: {what}", self.group));
            what.clone_into(&mut self.told.borrow_mut());
        }
    }

    fn topics_have_changed(&self) {
        if self.topics_changed.get().is_none() {
            self.topics_changed.set(Some(timer::now()));
        }
        self.change.raise();
    }

    pub(super) fn coordinator(&self) -> To {
        To::Coordinator(self.group.clone())
    }

    pub(super) fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.clone()))
    }

    pub(super) fn member_id(&self) -> StrBytes {
        StrBytes::from_string(self.id.borrow().clone())
    }
}
