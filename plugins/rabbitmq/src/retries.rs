//! What the host wants again later. The messages stay un-acknowledged at the broker; only when is remembered here.
//!
//! RabbitMQ has no delay of its own, and queues that delay by dead-lettering lose what is on its way when a broker dies. So
//! a message waits with us, and is handed over again from memory; where it was too large to keep, it is given back to the
//! broker when its time has come, and comes from there.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use futures::future::select;
use futures::pin_mut;
use whimbrel_sdk::timer;

use crate::hub::Hub;
use crate::subscription::Sub;
use whimbrel_sdk::signal::Signal;

/// The longest wait that is kept exactly; a longer one is cut to it.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// See the module. Bounded by what the subscriptions may hold.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    heap: RefCell<BinaryHeap<Due>>,
    changed: Signal,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Due {
    /// When something is to be done about it.
    at: Instant,
    token: u64,
    /// When the host wants it.
    wanted: Instant,
    sub: Weak<Sub>,
}

impl Retries {
    /// Remembers a message that waits. `until`: it must not be held longer.
    pub(crate) fn add(&self, sub: &Rc<Sub>, token: u64, wanted: Instant, until: Instant) {
        let due = Due { at: wanted.min(until), token, wanted, sub: Rc::downgrade(sub) };
        let first = self.next().is_none_or(|next| due.at < next);
        self.heap.borrow_mut().push(due);
        if first {
            self.changed.raise();
        }
    }

    /// When each message of a subscription that ends is wanted.
    pub(crate) fn take_of(&self, sub: &Rc<Sub>) -> Vec<(u64, Instant)> {
        let is_its = |due: &Due| due.sub.upgrade().is_some_and(|other| Rc::ptr_eq(&other, sub));
        let (its, others): (Vec<Due>, Vec<Due>) = self.heap.take().into_iter().partition(is_its);
        self.heap.replace(others.into());
        its.iter().map(|due| (due.token, due.wanted)).collect()
    }

    /// Ends [`run`].
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.changed.raise();
    }

    fn pop_due(&self, now: Instant) -> Option<Due> {
        let mut heap = self.heap.borrow_mut();
        if heap.peek().is_some_and(|first| first.at <= now) { heap.pop() } else { None }
    }

    fn next(&self) -> Option<Instant> {
        self.heap.borrow().peek().map(|due| due.at)
    }
}

/// When a wait that begins now is over.
pub(crate) fn after(wait: Duration) -> Instant {
    timer::now() + wait.min(WAIT_MAX)
}

/// Hands messages over again when their wait is over, for as long as the connection is open.
pub(crate) async fn run(hub: Rc<Hub>) {
    let retries = &hub.retries;
    while !retries.closed.get() {
        let now = timer::now();
        let mut gave_back: Vec<Rc<Sub>> = Vec::new();
        while let Some(Due { token, wanted, sub, .. }) = retries.pop_due(now) {
            let Some(sub) = sub.upgrade() else { continue };
            if sub.again(&hub, token, wanted, now) && !gave_back.iter().any(|known| Rc::ptr_eq(known, &sub)) {
                gave_back.push(sub);
            }
        }
        gave_back.iter().for_each(|sub| sub.nudge());
        let changed = retries.changed.wait();
        match retries.next() {
            None => changed.await,
            Some(next) => {
                let over = timer::sleep(next.saturating_duration_since(timer::now()));
                pin_mut!(changed);
                pin_mut!(over);
                select(changed, over).await;
            }
        }
    }
}

impl Ord for Due {
    /// The earliest is the greatest: that is the one a heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at).then_with(|| other.token.cmp(&self.token))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}
