//! Carries deliveries from the redis adapter to the host, and lies on the way.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use whimbrel_redis::RedisSubscription;
use whimbrel_sdk::{Delivery, DeliverySink, Message, Settlement, Subscription, Verdict, task, timer};

use crate::Shared;
use crate::lie::Lie;

/// Failures of one message until the liar dead-letters it.
const FAILURES_MAX: u32 = 3;

/// After so long in hand a message is delivered again by the liar that drops its leases: well within the three leases that the
/// kit holds one, and longer than a busy machine takes to settle what no check holds.
const LEASE: Duration = Duration::from_secs(3);

/// Copies that wait to be handed over.
const COPIES_MAX: usize = 1024;

/// What the host has in hand of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    held: RefCell<HashMap<u64, Held>>,
    /// Tokens of what the liar made up, or has settled itself.
    own: RefCell<HashSet<u64>>,
    failures: RefCell<HashMap<String, u32>>,
    next: Cell<u64>,
}

/// One delivery in hand, by the redis adapter's token.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) token: u64,
    pub(crate) id: String,
    pub(crate) message: Message,
}

impl Hand {
    /// The token the host gets to see.
    fn take(&self, delivery: &Delivery) -> u64 {
        let held = Held { token: delivery.token, id: delivery.id.clone(), message: delivery.message.clone() };
        let token = self.fresh();
        self.held.borrow_mut().insert(token, held);
        token
    }

    fn fresh(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// A token that only the liar knows of.
    fn made_up(&self) -> u64 {
        let token = self.fresh();
        self.own.borrow_mut().insert(token);
        token
    }

    pub(crate) fn forget_made_up(&self, token: u64) -> bool {
        self.own.borrow_mut().remove(&token)
    }

    pub(crate) fn let_go(&self, token: u64) -> Option<Held> {
        self.held.borrow_mut().remove(&token)
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.held.borrow().values().map(|held| held.id.clone()).collect()
    }

    pub(crate) fn failed_too_often(&self, id: &str) -> bool {
        let mut failures = self.failures.borrow_mut();
        let failures = failures.entry(id.to_owned()).or_default();
        *failures += 1;
        *failures >= FAILURES_MAX
    }
}

/// Until the redis adapter's stream ends.
pub(crate) async fn run(
    inner: Weak<RedisSubscription>,
    hand: Rc<Hand>,
    shared: Rc<Shared>,
    lists: mpsc::Receiver<Vec<Delivery>>,
    mut host: DeliverySink,
) {
    let (copies, again) = mpsc::channel(COPIES_MAX);
    // Ends with the lists: copies alone keep nothing alive.
    let mut all = futures::stream::select(
        lists.map(|list| (list, true)).chain(futures::stream::once(futures::future::ready((vec![], false)))),
        again.map(|copy: Delivery| (vec![copy], true)),
    );
    while let Some((list, goes_on)) = all.next().await {
        if !goes_on {
            break;
        }
        let list = lie(&inner, &hand, &shared, list, &copies).await;
        if !list.is_empty() && host.send(list).await.is_err() {
            break;
        }
    }
}

async fn lie(
    inner: &Weak<RedisSubscription>,
    hand: &Rc<Hand>,
    shared: &Shared,
    list: Vec<Delivery>,
    copies: &mpsc::Sender<Delivery>,
) -> Vec<Delivery> {
    let mut told = Vec::with_capacity(list.len());
    for mut delivery in list {
        // One of the liar's own copies.
        if delivery.token == 0 {
            delivery.token = hand.made_up();
            told.push(delivery);
            continue;
        }
        if shared.forgotten.borrow_mut().remove(&delivery.id) {
            ack(inner, delivery.token).await;
            continue;
        }
        match shared.lie {
            Lie::ManglesBytes => {
                delivery.message.data = String::from_utf8_lossy(&delivery.message.data).into_owned().into_bytes();
            }
            Lie::ManglesHeaders => {
                delivery.message.metadata.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
            }
            Lie::ForgetsContentType => delivery.message.metadata.retain(|(name, _)| name != "content-type"),
            Lie::CountsNothing => delivery.count = Some(1),
            Lie::AcksEarly => {
                ack(inner, delivery.token).await;
                delivery.token = hand.made_up();
                told.push(delivery);
                continue;
            }
            _ => {}
        }
        delivery.token = hand.take(&delivery);
        told.push(delivery.clone());
        match shared.lie {
            // The copy second: whoever settles the first has settled the message.
            Lie::Duplicates => told.push(Delivery { token: hand.made_up(), ..delivery }),
            Lie::DropsLeases => task::spawn(again(Rc::clone(hand), delivery, copies.clone())),
            _ => {}
        }
    }
    if shared.lie == Lie::Reorders {
        told.reverse();
    }
    told
}

/// Acknowledges what the host was never asked about.
async fn ack(inner: &Weak<RedisSubscription>, token: u64) {
    if let Some(inner) = inner.upgrade() {
        inner.settle(vec![Settlement { token, verdict: Verdict::Ack }]).await;
    }
}

/// Hands over a copy of what has been in hand for a while, as a broker does whose lease has run out.
async fn again(hand: Rc<Hand>, delivery: Delivery, mut copies: mpsc::Sender<Delivery>) {
    timer::sleep(LEASE).await;
    if hand.held.borrow().contains_key(&delivery.token) {
        // Token 0: the pump gives it one of its own.
        copies.try_send(Delivery { token: 0, ..delivery }).ok();
    }
}
