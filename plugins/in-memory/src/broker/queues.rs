//! Mode `queue`: a queue for each (topic, group), in memory. Called by the adapter.
//!
//! This file moves messages between calls, queues and the host; what a queue does with them is `queue`'s, which knows no
//! tasks and no clock. A queue begins with its group's first subscription and stays until the connection closes: with
//! nobody there it fills up, and then publishing to its topic is throttled. Absent on purpose: history. A new group begins
//! with what is published from then on, whatever start it asks for.

mod queue;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Delivery, DeliverySink, Failure, Message, SettleFailure, Settlement, Verdict, task, timer};

pub(super) use queue::Limits;
use queue::{HolderId, Queue, Taken};

use super::bell::Bell;
use super::room::{self, ENTRY_OVERHEAD_BYTES, Room, THROTTLED_WAIT_NANOS};
use super::topics::Topics;
use super::ttl;

/// Queues of one connection.
const QUEUES_MAX: usize = 10_000;

/// Messages in one list to the host.
const LIST_MESSAGES_MAX: usize = 256;

/// Bytes after which a list to the host ends: each is a copy beside the queue's own.
const LIST_BYTES_MAX: usize = 1 << 20;

/// All queues of the connection.
#[derive(Debug)]
pub(super) struct Queues {
    limits: Limits,
    room: Room,
    by_topic: RefCell<Topics<Group>>,
    by_group: RefCell<HashMap<(String, String), Rc<Group>>>,
    last_message: Cell<u64>,
    last_token: Rc<Cell<u64>>,
}

/// A queue, and who takes from it.
#[derive(Debug)]
struct Group {
    queue: RefCell<Queue>,
    takers: RefCell<Vec<Rc<Taker>>>,
    last_token: Rc<Cell<u64>>,
}

/// One subscription, as its queue sees it.
#[derive(Debug)]
struct Taker {
    holder: HolderId,
    bell: Bell,
    paused: Cell<bool>,
    ended: Cell<bool>,
}

/// A live subscription.
#[derive(Debug)]
pub struct Live {
    group: Rc<Group>,
    taker: Rc<Taker>,
}

impl Queues {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            room: Room::default(),
            by_topic: RefCell::default(),
            by_group: RefCell::default(),
            last_message: Cell::new(0),
            last_token: Rc::default(),
        }
    }

    /// A message's data may fill a queue.
    pub(super) fn message_bytes_max(&self) -> u64 {
        self.limits.bytes as u64
    }

    /// Puts a message into every queue of its topic, or into none.
    pub(super) fn publish(&self, message: Message) -> Result<(), Failure> {
        let groups = self.by_topic.borrow().listening(&message.topic);
        if groups.is_empty() {
            return Ok(());
        }
        let (length, length_max) = (message.data.len(), self.limits.bytes);
        if length > length_max {
            return Err(Failure::Invalid(format!("the message has {length} bytes, maxQueueBytes is {length_max}")));
        }
        let bytes = room::size(&message);
        if groups.iter().any(|group| !group.queue.borrow_mut().has_room(bytes, timer::now)) {
            let text = format!("a queue of {} is full (maxQueueMessages, maxQueueBytes)", message.topic);
            return Err(Failure::Throttled((text, THROTTLED_WAIT_NANOS)));
        }
        let expires = match ttl::of(&message.metadata) {
            Some(Duration::ZERO) => return Ok(()),
            // One that lies beyond what the clock can say never comes.
            Some(lifetime) => timer::now().checked_add(lifetime),
            None => None,
        };
        if !self.room.has(bytes + groups.len() * ENTRY_OVERHEAD_BYTES) {
            self.drop_expired();
        }
        let message = Rc::new(self.room.keep(message, bytes, groups.len())?);
        self.last_message.set(self.last_message.get() + 1);
        for group in groups {
            group.queue.borrow_mut().push(self.last_message.get(), Rc::clone(&message), expires);
            group.ring_those_with_room();
        }
        Ok(())
    }

    pub(super) fn subscribe(
        &self,
        topic: String,
        group: String,
        max_unsettled: u32,
        sink: DeliverySink,
    ) -> Result<Live, Failure> {
        let group = self.group(topic, group)?;
        let holder = group.queue.borrow_mut().attach(max_unsettled.max(1) as usize);
        let taker = Taker { holder, bell: Bell::default(), paused: Cell::default(), ended: Cell::default() };
        let taker = Rc::new(taker);
        group.takers.borrow_mut().push(Rc::clone(&taker));
        task::spawn(feed(Rc::clone(&group), Rc::clone(&taker), sink));
        Ok(Live { group, taker })
    }

    fn drop_expired(&self) {
        for group in self.by_group.borrow().values() {
            group.queue.borrow_mut().tidy(timer::now);
        }
    }

    fn group(&self, topic: String, name: String) -> Result<Rc<Group>, Failure> {
        let mut groups = self.by_group.borrow_mut();
        let count = groups.len();
        let key = (topic, name);
        if let Some(group) = groups.get(&key) {
            return Ok(Rc::clone(group));
        }
        if count >= QUEUES_MAX {
            return Err(Failure::Permanent(format!("more than {QUEUES_MAX} topics and groups")));
        }
        let group = Rc::new(Group {
            queue: RefCell::new(Queue::new(self.limits)),
            takers: RefCell::default(),
            last_token: Rc::clone(&self.last_token),
        });
        self.by_topic.borrow_mut().add(&key.0, Rc::clone(&group));
        groups.insert(key, Rc::clone(&group));
        Ok(group)
    }

    /// Ends all subscriptions. What the queues hold goes with the connection.
    pub(super) fn close(&self) {
        for group in self.by_group.borrow().values() {
            let takers = group.takers.borrow().clone();
            for taker in takers {
                group.end(&taker);
            }
        }
    }
}

impl Group {
    fn ring_those_with_room(&self) {
        let queue = self.queue.borrow();
        for taker in self.takers.borrow().iter() {
            if !taker.paused.get() && queue.holder_has_room(taker.holder) {
                taker.bell.ring();
            }
        }
    }

    fn ring_all(&self) {
        for taker in self.takers.borrow().iter() {
            taker.bell.ring();
        }
    }

    /// The next list for a taker; empty when there is nothing for it now.
    fn take(&self, taker: &Taker) -> Vec<Delivery> {
        let mut queue = self.queue.borrow_mut();
        queue.tidy(timer::now);
        if taker.paused.get() {
            return Vec::new();
        }
        let mut list = Vec::new();
        let mut bytes = 0;
        while list.len() < LIST_MESSAGES_MAX && bytes < LIST_BYTES_MAX {
            let token = self.last_token.get() + 1;
            let Some(Taken { id, message, count }) = queue.take(taker.holder, token) else { break };
            self.last_token.set(token);
            bytes += message.data.len();
            list.push(Delivery { token, id: id.to_string(), message: Message::clone(&**message), count: Some(count) });
        }
        list
    }

    /// Ends a subscription: what it held goes back to its place, for the others or for later.
    fn end(&self, taker: &Rc<Taker>) {
        if taker.ended.replace(true) {
            return;
        }
        self.takers.borrow_mut().retain(|other| !Rc::ptr_eq(other, taker));
        self.queue.borrow_mut().detach(taker.holder);
        taker.bell.ring();
        self.ring_those_with_room();
    }
}

impl Live {
    pub(super) fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let mut retried = false;
        let mut queue = self.group.queue.borrow_mut();
        let results = settlements.into_iter().map(|Settlement { token, verdict }| {
            let known = match verdict {
                Verdict::Ack => queue.ack(self.taker.holder, token),
                Verdict::Retry(wait) => {
                    retried = true;
                    queue.retry(self.taker.holder, token, Duration::from_nanos(wait), timer::now)
                }
            };
            if known { Ok(()) } else { Err(SettleFailure::Stale) }
        });
        let results = results.collect();
        drop(queue);
        if retried {
            // Every feeder waits for what is due next, and that may have changed.
            self.group.ring_all();
        } else {
            self.taker.bell.ring();
        }
        results
    }

    pub(super) fn pause(&self) {
        self.taker.paused.set(true);
        // What it would have taken is for the others.
        self.group.ring_those_with_room();
    }

    pub(super) fn resume(&self) {
        self.taker.paused.set(false);
        self.taker.bell.ring();
    }

    pub(super) fn stop(self) {
        self.group.end(&self.taker);
    }
}

/// Takes messages to the host for as long as the subscription lives, as many at once as its credit allows.
async fn feed(group: Rc<Group>, taker: Rc<Taker>, mut sink: DeliverySink) {
    while !taker.ended.get() {
        let list = group.take(&taker);
        if !list.is_empty() {
            if sink.send(list).await.is_err() {
                break;
            }
            continue;
        }
        let due = group.queue.borrow().next_due();
        match due {
            None => taker.bell.heard().await,
            Some(due) => {
                let wait = due.saturating_duration_since(timer::now());
                // Rung or not: look again.
                timer::timeout(wait, taker.bell.heard()).await;
            }
        }
    }
    group.end(&taker);
}

#[cfg(test)]
mod tests;
