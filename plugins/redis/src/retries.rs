//! What the host wants again later. The entries stay un-acknowledged at the broker, and their leases are kept; only when
//! and what is remembered here.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use futures::future::select;
use futures::pin_mut;
use whimbrel_sdk::{log, task, timer};

use crate::hub::Hub;
use crate::ledger::{Held, State};
use crate::pending::{self, Wanted};
use crate::pipe::text;
use crate::subscription::Sub;
use whimbrel_sdk::signal::Signal;

/// When the broker could not give an entry again, it is asked once more after this.
const AGAIN: Duration = Duration::from_secs(1);

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
    at: Instant,
    token: u64,
    sub: Weak<Sub>,
}

impl Retries {
    /// Remembers an entry that waits.
    pub(crate) fn add(&self, sub: &Rc<Sub>, token: u64, wait: Duration) {
        let at = Instant::now() + wait.min(WAIT_MAX);
        self.heap.borrow_mut().push(Due { at, token, sub: Rc::downgrade(sub) });
        self.changed.raise();
    }

    /// Forgets what waits for a subscription that ends, and tells how much longer each would have waited.
    pub(crate) fn take_of(&self, sub: &Rc<Sub>) -> Vec<(u64, Duration)> {
        let now = Instant::now();
        let is_its = |due: &Due| due.sub.upgrade().is_some_and(|other| Rc::ptr_eq(&other, sub));
        let (its, others): (Vec<Due>, Vec<Due>) = self.heap.take().into_iter().partition(is_its);
        self.heap.replace(others.into());
        its.iter().map(|due| (due.token, due.at.saturating_duration_since(now))).collect()
    }

    /// Ends [`run`].
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.changed.raise();
    }

    /// What is due, by subscription.
    fn take_due(&self, now: Instant) -> Vec<(Rc<Sub>, Vec<u64>)> {
        let mut due: Vec<(Rc<Sub>, Vec<u64>)> = Vec::new();
        let mut heap = self.heap.borrow_mut();
        while heap.peek().is_some_and(|first| first.at <= now) {
            let Some(Due { token, sub, .. }) = heap.pop() else { break };
            let Some(sub) = sub.upgrade().filter(|sub| sub.live.get()) else { continue };
            match due.iter_mut().find(|(known, _)| Rc::ptr_eq(known, &sub)) {
                Some((_, tokens)) => tokens.push(token),
                None => due.push((sub, vec![token])),
            }
        }
        due
    }

    fn next(&self) -> Option<Instant> {
        self.heap.borrow().peek().map(|due| due.at)
    }
}

/// Hands entries over again when their wait is over, for as long as the connection is open.
pub(crate) async fn run(hub: Rc<Hub>) {
    let retries = &hub.retries;
    while !retries.closed.get() {
        for (sub, tokens) in retries.take_due(Instant::now()) {
            task::spawn(hand_again(Rc::clone(&hub), sub, tokens));
        }
        let changed = retries.changed.wait();
        match retries.next() {
            None => changed.await,
            Some(next) => {
                let over = timer::sleep(next.saturating_duration_since(Instant::now()));
                pin_mut!(changed);
                pin_mut!(over);
                select(changed, over).await;
            }
        }
    }
}

async fn hand_again(hub: Rc<Hub>, sub: Rc<Sub>, tokens: Vec<u64>) {
    let wanted: Vec<Wanted> = {
        let ledger = sub.ledger.borrow();
        let waiting = tokens.iter().filter_map(|token| ledger.get(*token)).filter(|held| held.state == State::Waiting);
        let wanted = |held: Held| Wanted { id: held.id, count: held.count.unwrap_or(0), waiting: Some(held.token) };
        waiting.map(wanted).collect()
    };
    if let Err(failure) = pending::take(&hub, &sub, &wanted, Duration::ZERO).await {
        log::warn(&format!("messages of {:?} that wait for another attempt: {}", sub.topic, text(failure)));
        // Those that did come have another token by now.
        for wanted in &wanted {
            if let Some(token) = wanted.waiting.filter(|token| sub.ledger.borrow().get(*token).is_some()) {
                hub.retries.add(&sub, token, AGAIN);
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
