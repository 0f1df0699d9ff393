//! What the host wants again later. The entries stay un-acknowledged at the broker, and their leases are kept; only when
//! and what is remembered here.

use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use whimbrel_sdk::delayed::{Delayed, after};
use whimbrel_sdk::{log, task, timer};

use crate::hub::Hub;
use crate::ledger::{Held, State};
use crate::pending::{self, Wanted};
use crate::pipe::text;
use crate::subscription::Sub;

/// When the broker could not give an entry again, it is asked once more after this.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module. Bounded by what the subscriptions may hold.
#[derive(Debug, Default)]
pub(crate) struct Retries(Delayed<Waiting>);

#[derive(Debug)]
struct Waiting {
    token: u64,
    sub: Weak<Sub>,
}

impl Retries {
    /// Remembers an entry that waits.
    pub(crate) fn add(&self, sub: &Rc<Sub>, token: u64, wait: Duration) {
        self.0.add(after(wait), Waiting { token, sub: Rc::downgrade(sub) });
    }

    /// Forgets what waits for a subscription that ends, and tells how much longer each would have waited.
    pub(crate) fn take_of(&self, sub: &Rc<Sub>) -> Vec<(u64, Duration)> {
        let now = timer::now();
        let its = self.0.take_those(|waiting| waiting.sub.upgrade().is_some_and(|other| Rc::ptr_eq(&other, sub)));
        let left = |(due, waiting): (Instant, Waiting)| (waiting.token, due.saturating_duration_since(now));
        its.into_iter().map(left).collect()
    }

    /// Ends [`run`].
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Hands entries over again when their wait is over, for as long as the connection is open.
pub(crate) async fn run(hub: Rc<Hub>) {
    while let Some(due) = hub.retries.0.due().await {
        for (sub, tokens) in by_subscription(due) {
            task::spawn(hand_again(Rc::clone(&hub), sub, tokens));
        }
    }
}

fn by_subscription(due: Vec<Waiting>) -> Vec<(Rc<Sub>, Vec<u64>)> {
    let mut found: Vec<(Rc<Sub>, Vec<u64>)> = Vec::new();
    for Waiting { token, sub } in due {
        let Some(sub) = sub.upgrade().filter(|sub| sub.live.get()) else { continue };
        match found.iter_mut().find(|(known, _)| Rc::ptr_eq(known, &sub)) {
            Some((_, tokens)) => tokens.push(token),
            None => found.push((sub, vec![token])),
        }
    }
    found
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
