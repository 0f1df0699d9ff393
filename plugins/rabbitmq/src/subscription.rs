//! One subscription: what it holds, what it may still take, and what the host does with it. `consume` keeps its channel.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::{
    Delivery, DeliverySink, Failure, Message, SettleFailure, Settlement, Subscription, Verdict, log, timer,
};

use crate::acks;
use crate::bell::Bell;
use crate::channel::Channel;
use crate::failure::Lost;
use crate::hub::Hub;
use crate::later::Earlier;
use crate::ledger::{Held, Ledger, State};
use crate::message::{Incoming, incoming};
use crate::protocol::{Content, Request};

use crate::topology::Plan;
use crate::wire::Wire;
use whimbrel_sdk::delayed::after;
use whimbrel_sdk::signal::Signal;

/// RabbitMQ closes the channel of whoever keeps a message longer than its `consumer_timeout` (30 minutes, unless
/// configured). What waits for its next attempt goes back to it before that, and is taken up again.
const HOLD_MAX: Duration = Duration::from_secs(20 * 60);

/// How long stopping waits for the broker. What is not settled goes back in any case.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The consumer of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumer {
    /// There is none.
    Absent,
    /// It is being started or ended.
    Changing,
    /// It may have so many messages unsettled.
    Active(usize),
}

/// A message that was delivered by the broker, as the channel tells it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) content: Content,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) plan: Plan,
    pub(crate) group: String,
    pub(crate) wire: Rc<Wire>,
    /// The most messages it may hold.
    pub(crate) limit: usize,
    pub(crate) ledger: RefCell<Ledger>,
    /// What the host has not been offered yet, and how many bytes that is.
    outbox: RefCell<Vec<Delivery>>,
    outbox_bytes: Cell<usize>,
    fed: Signal,
    ended: Signal,
    pub(crate) live: Cell<bool>,
    pub(crate) paused: Cell<bool>,
    pub(crate) channel: RefCell<Option<Rc<Channel>>>,
    /// How many channels it has had: only the last one counts.
    pub(crate) serial: Cell<u64>,
    pub(crate) consumer: Cell<Consumer>,
    /// How many consumers there were.
    pub(crate) consumers: Cell<u64>,
    /// The broker has ended the consumer.
    pub(crate) cancelled: Cell<bool>,
    pub(crate) lost: RefCell<Option<Lost>>,
    /// Something has changed, for whoever keeps the channel.
    pub(crate) wake: Signal,
    /// The consumer was started or ended.
    pub(crate) turned: Bell,
    /// How many messages wait for the group, as the host was told last.
    pub(crate) lag: Cell<Option<u32>>,
    /// The `serial` of the channel when the broker would not say it.
    pub(crate) uncounted: Cell<u64>,
    failure: RefCell<Option<Failure>>,
}

impl Sub {
    /// A subscription that holds nothing.
    pub(crate) fn new(plan: Plan, group: String, limit: usize, wire: Rc<Wire>) -> Rc<Self> {
        Rc::new(Self {
            plan,
            group,
            wire,
            limit,
            ledger: RefCell::default(),
            outbox: RefCell::default(),
            outbox_bytes: Cell::new(0),
            fed: Signal::default(),
            ended: Signal::default(),
            live: Cell::new(true),
            paused: Cell::new(false),
            channel: RefCell::default(),
            serial: Cell::new(0),
            consumer: Cell::new(Consumer::Absent),
            consumers: Cell::new(0),
            cancelled: Cell::new(false),
            lost: RefCell::default(),
            wake: Signal::default(),
            turned: Bell::default(),
            lag: Cell::default(),
            uncounted: Cell::new(0),
            failure: RefCell::default(),
        })
    }

    /// How many messages more it may take.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.ledger.borrow().len())
    }

    /// Takes what the broker has delivered.
    pub(crate) fn take(self: &Rc<Self>, hub: &Hub, arrival: Arrival) {
        if !self.live.get() {
            return;
        }
        let Arrival { tag, redelivered, exchange, content } = arrival;
        let since = self.wire.about_now();
        if content.is_too_large() {
            self.keep_back(hub, tag, since, content.size);
            return;
        }
        let Incoming { id, before, metadata, body } = incoming(&hub.settings, content);
        let earlier = hub.later.borrow_mut().take(&self.plan.queue, &id);
        let counted = before.map_or(if redelivered { 2 } else { 1 }, |before| before.saturating_add(1));
        let count = counted.max(earlier.map_or(0, |earlier| earlier.count.saturating_add(1)));
        // The queue may be bound to the exchanges of several topics.
        let own = exchange == self.plan.topic || !hub.subscribes(&exchange);
        let topic = if own { self.plan.topic.clone() } else { exchange };
        let message = Message { topic, key: None, data: body, metadata };
        let copy = hub.keep(&message);
        let mut held = Held { token: 0, tag, id, count, state: State::Handed, since, copy };
        match earlier.and_then(|earlier| earlier.due) {
            Some(due) => {
                // It went back before its time, and has been counted as delivered then.
                held.state = State::Waiting;
                held.count = count.saturating_sub(1);
                let token = self.ledger.borrow_mut().insert(hub.next_serial(), held);
                hub.retries.add(self, token, due, since + HOLD_MAX);
            }
            None => {
                let id = held.id.clone();
                let token = self.ledger.borrow_mut().insert(hub.next_serial(), held);
                self.offer(Delivery { token, id, message, count: Some(count) });
            }
        }
    }

    /// A message that no adapter can hold stays where it is, and is not thrown away.
    fn keep_back(&self, hub: &Hub, tag: u64, since: Instant, size: u64) {
        let held = Held { token: 0, tag, id: String::new(), count: 0, state: State::Stuck, since, copy: None };
        self.ledger.borrow_mut().insert(hub.next_serial(), held);
        log::error(&format!(
            "queue {:?}: a message of {size} bytes is larger than this adapter can deliver; it stays in the queue and \
             takes up one place of the subscription",
            self.plan.queue
        ));
    }

    fn offer(&self, delivery: Delivery) {
        let bytes = size(&delivery.message);
        self.wire.gate.add(bytes);
        self.outbox_bytes.set(self.outbox_bytes.get() + bytes);
        self.outbox.borrow_mut().push(delivery);
        self.fed.raise();
    }

    fn take_outbox(&self) -> (Vec<Delivery>, usize) {
        (self.outbox.take(), self.outbox_bytes.take())
    }

    /// Acts on a message that waits, for its time has come: hands it over again, or gives it back to the broker. True: the
    /// connection has something to write.
    pub(crate) fn again(&self, hub: &Hub, token: u64, wanted: Instant, now: Instant) -> bool {
        let mut ledger = self.ledger.borrow_mut();
        let Some(held) = ledger.get(token).filter(|held| held.state == State::Waiting) else { return false };
        match held.copy.clone().filter(|_| wanted <= now) {
            Some(message) => {
                let Some(held) = ledger.hand_again(token, hub.next_serial()) else { return false };
                let delivery = Delivery { token: held.token, id: held.id.clone(), message, count: Some(held.count) };
                drop(ledger);
                self.offer(delivery);
                false
            }
            None => {
                let Some(held) = ledger.remove(token) else { return false };
                drop(ledger);
                let tag = held.tag;
                self.remember(hub, held, (wanted > now).then_some(wanted));
                self.tell(&Request::Nack { tag, multiple: false, requeue: true });
                true
            }
        }
    }

    fn remember(&self, hub: &Hub, held: Held, due: Option<Instant>) {
        hub.release(&held);
        if held.state != State::Stuck {
            hub.later.borrow_mut().put(&self.plan.queue, held.id, Earlier { count: held.count, due });
        }
    }

    fn tell(&self, request: &Request<'_>) {
        if let Some(channel) = self.channel.borrow().as_ref() {
            // A channel that is gone has given everything back by itself.
            channel.tell(request).ok();
        }
    }

    /// Has written what was told.
    pub(crate) fn nudge(&self) {
        if let Some(Ok(live)) = self.channel.borrow().as_ref().map(|channel| channel.live()) {
            live.nudge();
        }
    }

    /// The channel is gone: all tokens are stale, and the broker delivers again what was not settled.
    pub(crate) fn lose_tokens(self: &Rc<Self>, hub: &Hub) {
        let (_, bytes) = self.take_outbox();
        self.wire.gate.remove(bytes);
        let mut waiting: HashMap<u64, Instant> = hub.retries.take_of(self).into_iter().collect();
        let held = self.ledger.borrow_mut().clear();
        for held in held {
            let due = waiting.remove(&held.token);
            self.remember(hub, held, due);
        }
        self.consumer.set(Consumer::Absent);
        self.turned.ring();
        self.wake.raise();
    }

    /// Ends it from our side.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.replace(Some(failure));
        self.end();
    }

    fn end(&self) {
        self.live.set(false);
        self.ended.raise();
        self.wake.raise();
        self.turned.ring();
    }

    /// Takes deliveries to the host until the subscription ends.
    pub(crate) async fn feed(self: Rc<Self>, hub: Rc<Hub>, mut sink: DeliverySink) {
        let ended = self.ended.wait();
        pin_mut!(ended);
        loop {
            let (list, bytes) = self.take_outbox();
            if list.is_empty() {
                let fed = self.fed.wait();
                pin_mut!(fed);
                if let Either::Left(_) = select(ended.as_mut(), fed).await {
                    break;
                }
                continue;
            }
            let sent = {
                let sending = sink.send(list);
                pin_mut!(sending);
                match select(ended.as_mut(), sending).await {
                    Either::Left(_) => None,
                    Either::Right((taken, _)) => Some(taken.is_ok()),
                }
            };
            self.wire.gate.remove(bytes);
            match sent {
                None => break,
                Some(true) => {}
                // Nobody listens any more: the same as a stop.
                Some(false) => {
                    stop(&hub, &self).await;
                    return;
                }
            }
        }
        let failure = self.failure.take();
        if let Some(failure) = failure {
            sink.end(failure).await;
        }
    }
}

/// Bytes of a message, about.
pub(crate) fn size(message: &Message) -> usize {
    let metadata: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.data.len() + metadata + 256
}

/// What the host holds of a subscription.
#[derive(Debug)]
pub struct RabbitmqSubscription {
    pub(crate) hub: Rc<Hub>,
    pub(crate) sub: Rc<Sub>,
}

impl Subscription for RabbitmqSubscription {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let settings = &self.hub.settings;
        let mut acked = Vec::new();
        let mut results = Vec::with_capacity(settlements.len());
        for Settlement { token, verdict } in settlements {
            if self.sub.ledger.borrow_mut().handed(token).is_none() {
                self.hub.stale.set(self.hub.stale.get() + 1);
                results.push(Err(SettleFailure::Stale));
                continue;
            }
            match verdict {
                Verdict::Ack => acked.extend(self.done(token)),
                Verdict::Retry(_) if settings.auto_ack => acked.extend(self.done(token)),
                Verdict::Retry(_) if settings.drop_failed => {
                    if let Some(tag) = self.done(token) {
                        self.sub.tell(&Request::Nack { tag, multiple: false, requeue: false });
                    }
                }
                Verdict::Retry(wait) => self.wait(token, Duration::from_nanos(wait)),
            }
            results.push(Ok(()));
        }
        if !self.write(acked).await {
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(SettleFailure::Stale));
        }
        results
    }

    async fn pause(&self) {
        self.sub.paused.set(true);
        self.sub.wake.raise();
        while self.sub.live.get() && self.sub.consumer.get() != Consumer::Absent {
            self.sub.turned.wait().await;
        }
    }

    async fn resume(&self) {
        self.sub.paused.set(false);
        self.sub.wake.raise();
    }

    async fn stop(self) {
        stop(&self.hub, &self.sub).await;
    }
}

impl RabbitmqSubscription {
    /// Nothing more is to be remembered of a message: what its channel calls it.
    fn done(&self, token: u64) -> Option<u64> {
        let held = self.sub.ledger.borrow_mut().remove(token)?;
        self.hub.release(&held);
        Some(held.tag)
    }

    fn wait(&self, token: u64, wait: Duration) {
        let mut ledger = self.sub.ledger.borrow_mut();
        let Some(held) = ledger.handed(token) else { return };
        held.state = State::Waiting;
        let until = held.since + HOLD_MAX;
        drop(ledger);
        self.hub.retries.add(&self.sub, token, after(wait), until);
    }

    /// Writes acknowledgements, and all that was told. False: the channel was lost.
    async fn write(&self, acked: Vec<u64>) -> bool {
        let sub = &self.sub;
        let channel = sub.channel.borrow().clone();
        let Some(channel) = channel else { return acked.is_empty() };
        let lowest = sub.ledger.borrow().lowest_tag();
        for acks::Ack { tag, multiple } in acks::frames(acked, lowest) {
            if channel.tell(&Request::Ack { tag, multiple }).is_err() {
                return false;
            }
        }
        let Ok(live) = channel.live() else { return false };
        live.flush().await;
        // A consumer that had to be started with less than its due, or not at all, may have more now.
        let is_short = match sub.consumer.get() {
            Consumer::Absent => !sub.paused.get(),
            Consumer::Active(prefetch) => prefetch < sub.limit && sub.room() == sub.limit,
            Consumer::Changing => false,
        };
        if is_short {
            sub.wake.raise();
        }
        channel.is_open()
    }
}

/// Ends a subscription. What is not settled goes back to the queue with the channel, and is free for others.
pub(crate) async fn stop(hub: &Hub, sub: &Rc<Sub>) {
    sub.end();
    let channel = sub.channel.take();
    if let Some(channel) = channel {
        timer::timeout(STOP_WAIT, channel.close()).await;
    }
    hub.remove(sub).await;
}
