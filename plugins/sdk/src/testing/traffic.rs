//! Publishes and consumes while something breaks, and keeps account of each message.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};

use super::{Bus, Inbox, message, number, until};
use crate::{Adapter, Failure, Subscription};

/// Tasks that publish, one call after the other.
const PUBLISHERS: usize = 8;

/// Messages in a call.
const CALL: u32 = 20;

/// How long a call may take.
const CALL_WAIT: Duration = Duration::from_secs(3);

/// What the consumer may hold.
const HELD_MAX: u32 = 64;

/// What is known of each message, by its number.
#[derive(Debug, Default)]
pub struct Account {
    /// Durably there, says the adapter.
    pub confirmed: RefCell<HashSet<u32>>,
    /// There or not: it was under way when something broke.
    pub unknown: RefCell<HashSet<u32>>,
    /// Not there, says the adapter.
    pub refused: RefCell<HashSet<u32>>,
    /// Delivered.
    pub seen: RefCell<HashSet<u32>>,
    next: Cell<u32>,
    stop: Cell<bool>,
}

impl Account {
    /// Compares with what an independent client found at the broker.
    ///
    /// # Panics
    /// An answer was not true, or something was delivered that never was there, or no message was under way at any fault.
    pub fn compare(&self, stored: &HashSet<u32>) {
        let (confirmed, unknown, refused) = (self.confirmed.borrow(), self.unknown.borrow(), self.refused.borrow());
        assert!(confirmed.is_subset(stored), "confirmed and not stored");
        assert!(refused.is_disjoint(stored), "refused and stored all the same");
        // What was under way when a broker died may have gone to one of its queues and not to the other.
        assert!(self.seen.borrow().difference(stored).all(|one| unknown.contains(one)), "delivered and never stored");
        assert!(!unknown.is_empty(), "no publish was under way at any fault: this proves nothing");
    }
}

/// A bus in use.
#[derive(Debug)]
pub struct Traffic<A: Adapter> {
    bus: Rc<Bus<A>>,
    account: Rc<Account>,
    publishers: Vec<JoinHandle<()>>,
    consuming: JoinHandle<()>,
}

impl<A: Adapter> Traffic<A> {
    /// Begins, on a topic and with a group that are for it alone.
    pub async fn start(bus: Bus<A>, topic: &str, group: &str) -> Self {
        let (bus, account) = (Rc::new(bus), Rc::<Account>::default());
        let inbox = bus.subscribe(topic, group, HELD_MAX).await;
        let publisher = |_| spawn_local(publish(Rc::clone(&bus), topic.to_owned(), Rc::clone(&account)));
        let publishers = (0..PUBLISHERS).map(publisher).collect();
        let consuming = spawn_local(consume(inbox, Rc::clone(&account)));
        Self { bus, account, publishers, consuming }
    }

    /// Waits until so many more messages are confirmed.
    ///
    /// # Panics
    /// They are not, in time.
    pub async fn passes(&self, more: usize) {
        let goal = self.account.confirmed.borrow().len() + more;
        until("traffic", async || self.account.confirmed.borrow().len() >= goal).await;
    }

    /// Publishes no more, and waits until what was confirmed has been delivered. Consuming goes on.
    ///
    /// # Panics
    /// Something is missing.
    pub async fn arrives(&mut self) {
        self.account.stop.set(true);
        for publisher in self.publishers.drain(..) {
            publisher.await.expect("a publisher ends in good order");
        }
        let (confirmed, seen) = (&self.account.confirmed, &self.account.seen);
        until("what was confirmed is delivered", async || confirmed.borrow().is_subset(&seen.borrow())).await;
    }

    /// Consumes no more, and closes the adapter.
    ///
    /// # Panics
    /// Closing takes too long.
    pub async fn end(self) -> Rc<Account> {
        self.consuming.abort();
        // It holds the inbox until it is gone.
        self.consuming.await.ok();
        Rc::into_inner(self.bus).expect("publishers have ended").close().await;
        self.account
    }
}

/// Each number is sent once, so that its fate is known.
async fn publish<A: Adapter>(bus: Rc<Bus<A>>, topic: String, account: Rc<Account>) {
    while !account.stop.get() {
        let first = account.next.get();
        account.next.set(first + CALL);
        let list = (first..first + CALL).map(|number| message(&topic, number.to_string().as_bytes())).collect();
        let results = bus.adapter.publish(list, CALL_WAIT).await;
        for (number, result) in (first..).zip(results) {
            let fate = match result {
                Ok(()) => &account.confirmed,
                Err(Failure::Unknown(_)) => &account.unknown,
                Err(Failure::Transient(_)) => &account.refused,
                Err(other) => panic!("{other:?}"),
            };
            fate.borrow_mut().insert(number);
        }
    }
}

async fn consume<S: Subscription>(inbox: Inbox<S>, account: Rc<Account>) {
    loop {
        let list = inbox.list().await;
        account.seen.borrow_mut().extend(list.iter().map(number));
        // An acknowledgement whose answer was lost may count or not: then the message may come again.
        inbox.ack_all(&list).await;
    }
}
