//! One subscription: what it holds, what it may still take, and what the host does with it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use whimbrel_sdk::{Failure, SettleFailure, Settlement, StartPosition, Subscription, Verdict, timer};

use super::Consumers;
use super::ledger::{Ledger, State};
use super::partition::Partition;
use crate::group::Member;
use whimbrel_sdk::signal::Signal;

/// The longest wait for another attempt that is kept exactly; a longer one is cut to it.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// One subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) topic: String,
    /// The most messages it may hold.
    pub(crate) limit: usize,
    pub(crate) start: StartPosition,
    /// How many partitions the topic had when it was subscribed to. In those that came later everything is new.
    pub(crate) known_partitions: Cell<i32>,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) partitions: RefCell<Vec<Rc<Partition>>>,
    /// Whose turn it is.
    pub(crate) turn: Cell<usize>,
    /// When to hand out again what waits, by token.
    pub(crate) retries: RefCell<BTreeSet<(Instant, u64)>>,
    /// There may be something to deliver.
    pub(crate) fed: Signal,
    pub(crate) ended: Signal,
    pub(crate) is_live: Cell<bool>,
    pub(crate) is_paused: Cell<bool>,
    /// Its member has joined the group with it, and knows where all its partitions begin.
    pub(crate) is_ready: Cell<bool>,
    pub(crate) readied: Signal,
    pub(crate) failure: RefCell<Option<Failure>>,
}

impl Sub {
    /// A subscription that holds nothing.
    pub(crate) fn new(topic: String, limit: usize, start: StartPosition, known_partitions: i32) -> Rc<Self> {
        Rc::new(Self {
            topic,
            limit,
            start,
            known_partitions: Cell::new(known_partitions),
            ledger: RefCell::default(),
            partitions: RefCell::default(),
            turn: Cell::new(0),
            retries: RefCell::default(),
            fed: Signal::default(),
            ended: Signal::default(),
            is_live: Cell::new(true),
            is_paused: Cell::new(false),
            is_ready: Cell::new(false),
            readied: Signal::default(),
            failure: RefCell::default(),
        })
    }

    /// Where a partition without a commit begins.
    pub(crate) fn start_of(&self, partition: i32) -> StartPosition {
        if partition >= self.known_partitions.get() { StartPosition::Earliest } else { self.start }
    }

    /// Bytes that were fetched and not delivered.
    pub(crate) fn buffered(&self, now: Instant) -> usize {
        self.partitions.borrow().iter().filter_map(|partition| partition.fetch_at(now)).map(|(_, bytes)| bytes).sum()
    }

    /// Ends it from our side.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.replace(Some(failure));
        self.is_live.set(false);
        self.ended.raise();
        self.readied.raise();
    }

    /// A partition is about to be given up: nothing more of it is delivered, and what waits for another attempt is left
    /// to its next reader. A message that fails for ever must not hold up the group.
    pub(crate) fn release(&self, partition: &Rc<Partition>) {
        partition.is_ours.set(false);
        let mut ledger = self.ledger.borrow_mut();
        ledger.forget_waiting_of(partition);
        self.retries.borrow_mut().retain(|(_, token)| ledger.waits(*token));
    }

    /// A partition is given up: its tokens are stale.
    pub(crate) fn forget(&self, partition: &Rc<Partition>) {
        self.release(partition);
        self.ledger.borrow_mut().forget_all_of(partition);
        self.partitions.borrow_mut().retain(|other| !Rc::ptr_eq(other, partition));
        self.fed.raise();
    }
}

/// What the host holds of a subscription.
#[derive(Debug)]
pub struct KafkaSubscription {
    pub(crate) hub: Rc<Consumers>,
    pub(crate) member: Rc<Member>,
    pub(crate) sub: Rc<Sub>,
}

impl Subscription for KafkaSubscription {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let mut results = Vec::with_capacity(settlements.len());
        let mut unconfirmed = Vec::new();
        let now = timer::now();
        for Settlement { token, verdict } in settlements {
            let result = match verdict {
                Verdict::Retry(wait) => self.retry(token, now + Duration::from_nanos(wait).min(RETRY_WAIT_MAX)),
                Verdict::Ack => self.ack(token).map(|must_wait| {
                    if must_wait {
                        unconfirmed.push((results.len(), token));
                    }
                }),
            };
            if result.is_err() {
                self.hub.stale.set(self.hub.stale.get() + 1);
            }
            results.push(result);
        }
        self.sub.fed.raise();
        if !unconfirmed.is_empty() {
            let confirmed = self.member.commits.confirm().await;
            for (index, token) in unconfirmed {
                results[index] = confirmed.clone();
                self.sub.ledger.borrow_mut().close(token);
            }
            self.sub.fed.raise();
            self.member.notice_settled();
        }
        results
    }

    async fn pause(&self) {
        self.sub.is_paused.set(true);
    }

    async fn resume(&self) {
        self.sub.is_paused.set(false);
        self.sub.fed.raise();
        self.hub.wake_fetchers();
    }

    async fn stop(self) {
        self.hub.stop(&self.member, &self.sub).await;
    }
}

impl KafkaSubscription {
    /// Acknowledges. True: only the broker's answer makes it done. False: it is beyond a hole, where there is nothing to
    /// confirm yet; it goes out as a note with the commits that come.
    fn ack(&self, token: u64) -> Result<bool, SettleFailure> {
        let mut ledger = self.sub.ledger.borrow_mut();
        let held = ledger.settle(token, State::Settling).ok_or(SettleFailure::Stale)?;
        let moved = held.partition.ack(held.record.offset);
        if !moved {
            ledger.close(token);
            self.member.notice_settled();
        }
        Ok(moved)
    }

    fn retry(&self, token: u64, at: Instant) -> Result<(), SettleFailure> {
        let mut ledger = self.sub.ledger.borrow_mut();
        let held = ledger.settle(token, State::Waiting).ok_or(SettleFailure::Stale)?;
        if held.partition.is_ours.get() {
            self.sub.retries.borrow_mut().insert((at, token));
        } else {
            // It is being given up: the next reader gets it.
            ledger.close(token);
            self.member.notice_settled();
        }
        Ok(())
    }
}
