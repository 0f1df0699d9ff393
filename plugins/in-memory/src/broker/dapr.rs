//! Mode `dapr`: what Dapr's own in-memory component does, and nothing better. Called by the adapter.
//!
//! Every subscription gets a copy of each message, has one unsettled message at most, and loses what it refuses. A publish
//! waits until every subscriber of its topic is idle, hands over to all of them at once, and returns. So it either reaches
//! all of them or, past its deadline, none. Absent on purpose: groups, redelivery, expiry, anything kept for later.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::{Delivery, DeliverySink, Failure, Message, SettleFailure, Settlement, Verdict, log, task, timer};

use super::bell::Bell;
use super::room::{Kept, Room, THROTTLED_WAIT_NANOS, size};
use super::topics::{Topics, covers};

/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 10_000;

/// Publishes that may wait for subscribers, on all topics. More are throttled.
const PUBLISHES_WAITING_MAX: usize = 10_000;

/// Hands messages from publishers to subscribers.
#[derive(Debug, Default)]
pub(super) struct Bus(Rc<State>);

#[derive(Debug, Default)]
struct State {
    subscribers: RefCell<Topics<Subscriber>>,
    /// Publishes that wait, by topic, oldest first. A topic nobody waits for is absent.
    lines: RefCell<BTreeMap<String, VecDeque<Waiting>>>,
    waiting: Cell<usize>,
    room: Room,
    /// Numbers messages, deliveries and turns alike.
    last_number: Cell<u64>,
    closed: Cell<bool>,
}

/// A publish that waits for its turn. Whoever asked may be gone: then it is never handed over.
#[derive(Debug)]
struct Waiting {
    number: u64,
    message: Kept,
    handed_over: oneshot::Sender<()>,
}

/// One subscription, as its publishers see it.
#[derive(Debug)]
struct Subscriber {
    topic: String,
    bell: Bell,
    outbox: RefCell<Option<Delivery>>,
    unsettled: Cell<Option<u64>>,
    paused: Cell<bool>,
    ended: Cell<bool>,
}

/// A live subscription.
#[derive(Debug)]
pub struct Live {
    bus: Rc<State>,
    subscriber: Rc<Subscriber>,
}

impl Bus {
    /// Publishes messages, one after the other.
    pub(super) async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        // It does not run before somebody waits for it: a publish that need not wait asks for no timer.
        let late = timer::sleep(deadline);
        pin_mut!(late);
        let mut results = Vec::with_capacity(messages.len());
        let mut in_time = true;
        for message in messages {
            let result = if in_time { self.publish_one(message, late.as_mut()).await } else { Err(too_late()) };
            in_time = in_time && !matches!(result, Err(Failure::Transient(_)));
            results.push(result);
        }
        results
    }

    async fn publish_one(&self, message: Message, late: Pin<&mut impl Future<Output = ()>>) -> Result<(), Failure> {
        let Some(message) = self.0.offer(message)? else { return Ok(()) };
        let topic = message.topic.clone();
        let turn = self.0.line_up(message)?;
        match select(turn, late).await {
            Either::Left((Ok(()), _)) => Ok(()),
            Either::Left((Err(oneshot::Canceled), _)) => Err(closed()),
            Either::Right(((), turn)) => {
                drop(turn);
                self.0.sweep(&topic);
                Err(too_late())
            }
        }
    }

    /// Subscribes: what is published from now on is delivered.
    pub(super) fn subscribe(&self, topic: String, sink: DeliverySink) -> Result<Live, Failure> {
        let mut subscribers = self.0.subscribers.borrow_mut();
        if subscribers.count() >= SUBSCRIPTIONS_MAX {
            return Err(Failure::Permanent(format!("more than {SUBSCRIPTIONS_MAX} subscriptions")));
        }
        let subscriber = Rc::new(Subscriber::new(topic));
        subscribers.add(&subscriber.topic, Rc::clone(&subscriber));
        task::spawn(feed(Rc::clone(&self.0), Rc::clone(&subscriber), sink));
        Ok(Live { bus: Rc::clone(&self.0), subscriber })
    }

    /// Ends all subscriptions and answers all who wait.
    pub(super) fn close(&self) {
        self.0.closed.set(true);
        self.0.waiting.set(0);
        // A sender that is dropped without a word says that the connection was closed.
        drop(self.0.lines.take());
        for subscriber in self.0.subscribers.borrow().all() {
            subscriber.end();
        }
    }
}

impl State {
    /// Hands a message over if it is its turn, and gives it back otherwise.
    fn offer(&self, message: Message) -> Result<Option<Message>, Failure> {
        if self.closed.get() {
            return Err(closed());
        }
        let listening = self.subscribers.borrow().listening(&message.topic);
        if listening.is_empty() {
            return Ok(None);
        }
        let first = !self.lines.borrow().contains_key(&message.topic);
        if first && listening.iter().all(|subscriber| subscriber.is_idle()) {
            self.hand_over(message, listening);
            return Ok(None);
        }
        Ok(Some(message))
    }

    fn line_up(&self, message: Message) -> Result<oneshot::Receiver<()>, Failure> {
        if self.waiting.get() >= PUBLISHES_WAITING_MAX {
            let text = format!("{PUBLISHES_WAITING_MAX} publishes wait for their subscribers");
            return Err(Failure::Throttled((text, THROTTLED_WAIT_NANOS)));
        }
        let bytes = size(&message);
        let message = self.room.keep(message, bytes, 1)?;
        self.waiting.set(self.waiting.get() + 1);
        let (handed_over, turn) = oneshot::channel();
        let waiting = Waiting { number: self.next_number(), message, handed_over };
        self.lines.borrow_mut().entry(waiting.message.topic.clone()).or_default().push_back(waiting);
        Ok(turn)
    }

    /// Lets those go whose turn has come, now that a subscriber of this topic is idle or gone.
    fn advance(&self, subscribed: &str) {
        while let Some(waiting) = self.next_turn(subscribed) {
            // A publisher that is gone was told "not handed over", and that stays true.
            if waiting.handed_over.send(()).is_ok() {
                let listening = self.subscribers.borrow().listening(&waiting.message.topic);
                self.hand_over(waiting.message.into_message(), listening);
            }
        }
    }

    /// The oldest publish whose subscribers are all idle, of those that one subscription may have held up.
    fn next_turn(&self, subscribed: &str) -> Option<Waiting> {
        let mut lines = self.lines.borrow_mut();
        let held_up = lines.iter().filter(|(topic, _)| covers(subscribed, topic) && self.all_idle(topic));
        let oldest = held_up.min_by_key(|(_, line)| line.front().map(|waiting| waiting.number));
        let topic = oldest.map(|(topic, _)| topic.clone())?;
        let line = lines.get_mut(&topic)?;
        let waiting = line.pop_front()?;
        if line.is_empty() {
            lines.remove(&topic);
        }
        self.waiting.set(self.waiting.get().saturating_sub(1));
        Some(waiting)
    }

    fn all_idle(&self, topic: &str) -> bool {
        self.subscribers.borrow().listening(topic).iter().all(|subscriber| subscriber.is_idle())
    }

    /// Forgets those who wait no longer.
    fn sweep(&self, topic: &str) {
        let mut lines = self.lines.borrow_mut();
        let Some(line) = lines.get_mut(topic) else { return };
        let before = line.len();
        line.retain(|waiting| !waiting.handed_over.is_canceled());
        self.waiting.set(self.waiting.get().saturating_sub(before - line.len()));
        if line.is_empty() {
            lines.remove(topic);
        }
    }

    /// The last one gets the message itself, the others a copy.
    fn hand_over(&self, message: Message, mut listening: Vec<Rc<Subscriber>>) {
        let id = self.next_number();
        let Some(last) = listening.pop() else { return };
        for subscriber in listening {
            subscriber.take(self.next_number(), id, message.clone());
        }
        last.take(self.next_number(), id, message);
    }

    fn end(&self, subscriber: &Rc<Subscriber>) {
        if subscriber.end() {
            self.subscribers.borrow_mut().remove(&subscriber.topic, subscriber);
            self.advance(&subscriber.topic);
        }
    }

    fn next_number(&self) -> u64 {
        self.last_number.set(self.last_number.get() + 1);
        self.last_number.get()
    }
}

impl Subscriber {
    fn new(topic: String) -> Self {
        Self {
            topic,
            bell: Bell::default(),
            outbox: RefCell::default(),
            unsettled: Cell::default(),
            paused: Cell::default(),
            ended: Cell::default(),
        }
    }

    /// A paused one is not idle: its publishers wait until it resumes or stops.
    fn is_idle(&self) -> bool {
        self.unsettled.get().is_none() && !self.paused.get()
    }

    fn take(&self, token: u64, id: u64, message: Message) {
        self.unsettled.set(Some(token));
        *self.outbox.borrow_mut() = Some(Delivery { token, id: id.to_string(), message, count: None });
        self.bell.ring();
    }

    /// Says whether it was live until now.
    fn end(&self) -> bool {
        let live = !self.ended.replace(true);
        self.bell.ring();
        live
    }
}

impl Live {
    /// Both verdicts end the matter; a refusal is worth a line in the log.
    pub(super) fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        settlements.into_iter().map(|settlement| self.settle_one(&settlement)).collect()
    }

    fn settle_one(&self, settlement: &Settlement) -> Result<(), SettleFailure> {
        if self.subscriber.unsettled.get() != Some(settlement.token) {
            return Err(SettleFailure::Stale);
        }
        if let Verdict::Retry(_) = settlement.verdict {
            let topic = &self.subscriber.topic;
            log::warn(&format!("a message for {topic} was refused and is gone: mode dapr does not deliver again"));
        }
        self.subscriber.unsettled.set(None);
        self.bus.advance(&self.subscriber.topic);
        Ok(())
    }

    pub(super) fn pause(&self) {
        self.subscriber.paused.set(true);
    }

    pub(super) fn resume(&self) {
        self.subscriber.paused.set(false);
        self.bus.advance(&self.subscriber.topic);
    }

    pub(super) fn stop(self) {
        self.bus.end(&self.subscriber);
    }
}

/// Takes messages to the host for as long as the subscription lives. Ends it when the host takes no more.
async fn feed(bus: Rc<State>, subscriber: Rc<Subscriber>, mut sink: DeliverySink) {
    while !subscriber.ended.get() {
        let delivery = subscriber.outbox.take();
        match delivery {
            None => subscriber.bell.heard().await,
            Some(delivery) => {
                if sink.send(vec![delivery]).await.is_err() {
                    break;
                }
            }
        }
    }
    bus.end(&subscriber);
}

fn too_late() -> Failure {
    Failure::Transient(
        "a subscriber of the topic is still busy with the message before; nothing was handed over".into(),
    )
}

fn closed() -> Failure {
    Failure::Permanent("the connection is closed".into())
}

#[cfg(test)]
mod tests;
