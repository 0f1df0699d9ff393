//! What the host wants again later. The messages stay un-acknowledged at the broker; only when is remembered here.
//!
//! RabbitMQ has no delay of its own, and queues that delay by dead-lettering lose what is on its way when a broker dies. So
//! a message waits with us, and is handed over again from memory; where it was too large to keep, it is given back to the
//! broker when its time has come, and comes from there.

use std::rc::{Rc, Weak};
use std::time::Instant;

use whimbrel_sdk::delayed::Delayed;
use whimbrel_sdk::timer;

use crate::hub::Hub;
use crate::subscription::Sub;

/// See the module. Bounded by what the subscriptions may hold.
#[derive(Debug, Default)]
pub(crate) struct Retries(Delayed<Waiting>);

#[derive(Debug)]
struct Waiting {
    token: u64,
    /// When the host wants it. Something may be to be done about it before.
    wanted: Instant,
    sub: Weak<Sub>,
}

impl Retries {
    /// Remembers a message that waits. `until`: it must not be held longer.
    pub(crate) fn add(&self, sub: &Rc<Sub>, token: u64, wanted: Instant, until: Instant) {
        self.0.add(wanted.min(until), Waiting { token, wanted, sub: Rc::downgrade(sub) });
    }

    /// When each message of a subscription that ends is wanted.
    pub(crate) fn take_of(&self, sub: &Rc<Sub>) -> Vec<(u64, Instant)> {
        let its = self.0.take_those(|waiting| waiting.sub.upgrade().is_some_and(|other| Rc::ptr_eq(&other, sub)));
        its.into_iter().map(|(_, waiting)| (waiting.token, waiting.wanted)).collect()
    }

    /// Ends [`run`].
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Hands messages over again when their wait is over, for as long as the connection is open.
pub(crate) async fn run(hub: Rc<Hub>) {
    while let Some(due) = hub.retries.0.due().await {
        let now = timer::now();
        let mut gave_back: Vec<Rc<Sub>> = Vec::new();
        for Waiting { token, wanted, sub } in due {
            let Some(sub) = sub.upgrade() else { continue };
            if sub.again(&hub, token, wanted, now) && !gave_back.iter().any(|known| Rc::ptr_eq(known, &sub)) {
                gave_back.push(sub);
            }
        }
        gave_back.iter().for_each(|sub| sub.nudge());
    }
}
