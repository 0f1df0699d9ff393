//! One subscription: what it holds, what it may still take, and what the host does with it.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::{Delivery, DeliverySink, Failure, SettleFailure, Settlement, Subscription, Verdict, task, timer};

use crate::api::Place;
use crate::consumers::{Consumer, Wish};
use crate::fetch::Feed;
use crate::hub::Hub;
use crate::ledger::{AckSubject, Ledger};
use crate::message;
use crate::protocol::{Msg, publish, status};
use crate::wire::{Request, gather};
use whimbrel_sdk::signal::Signal;

/// How long stopping and pausing wait for the broker. What is not done by then is made up for by leases that run out.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The longest delay that the broker understands.
const DELAY_MAX_NANOS: u64 = i64::MAX.unsigned_abs();

/// One subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) wish: Wish,
    /// The most deliveries it may hold.
    pub(crate) limit: usize,
    pub(crate) consumer: RefCell<Consumer>,
    pub(crate) ledger: RefCell<Ledger>,
    /// How it stands with the broker.
    pub(crate) feed: Feed,
    /// What the host has not been offered yet.
    outbox: RefCell<Vec<Delivery>>,
    /// Bytes that the host has not taken yet.
    pub(crate) untaken_bytes: Cell<usize>,
    fed: Signal,
    ended: Signal,
    pub(crate) live: Cell<bool>,
    pub(crate) paused: Cell<bool>,
    failure: RefCell<Option<Failure>>,
}

impl Sub {
    /// A subscription that holds nothing.
    pub(crate) fn new(wish: Wish, consumer: Consumer, limit: usize) -> Rc<Self> {
        Rc::new(Self {
            wish,
            limit,
            consumer: RefCell::new(consumer),
            ledger: RefCell::default(),
            feed: Feed::default(),
            outbox: RefCell::default(),
            untaken_bytes: Cell::new(0),
            fed: Signal::default(),
            ended: Signal::default(),
            live: Cell::new(true),
            paused: Cell::new(false),
            failure: RefCell::default(),
        })
    }

    /// Whether it has not ended.
    pub(crate) fn is_live(&self) -> bool {
        self.live.get()
    }

    /// How long a delivered message may be left alone.
    pub(crate) fn lease(&self) -> Duration {
        self.consumer.borrow().lease
    }

    /// How much of the credit is free.
    pub(crate) fn free(&self) -> usize {
        self.limit.saturating_sub(self.ledger.borrow().used())
    }

    /// Has it look after itself.
    pub(crate) fn wake(&self) {
        self.feed.wake.raise();
    }

    /// Where to acknowledge what is held.
    pub(crate) fn each_held(&self, mut act: impl FnMut(&str)) {
        self.ledger.borrow().held().for_each(|ack| act(ack));
    }

    /// The connection was lost, and with it what was handed out on it.
    pub(crate) fn lose_tokens(&self) {
        self.outbox.take();
        self.ledger.borrow_mut().forget_held();
        self.feed.is_lost();
        self.wake();
    }

    /// Ends it from our side.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.replace(Some(failure));
        self.live.set(false);
        self.ended.raise();
        self.wake();
    }

    /// Takes what the broker sent. Must not wait.
    pub(crate) fn take(&self, hub: &Hub, sid: u64, msg: Msg<'_>) {
        self.feed.heard.set(true);
        let ack = msg.reply.and_then(|reply| Some((reply, Place::of(reply)?)));
        match (ack, status(msg.head)) {
            (Some((ack, place)), _) => self.take_message(hub, sid, ack, place, msg),
            (None, Some(status)) => self.feed.take_status(hub, status, msg),
            // Somebody published to our own subject.
            (None, None) => {}
        }
    }

    fn take_message(&self, hub: &Hub, sid: u64, ack: &str, place: Place, msg: Msg<'_>) {
        self.feed.one_less(place.pending, self.limit);
        if !self.live.get() {
            return;
        }
        if self.free() == 0 {
            self.feed.refuse(hub, ack);
            return;
        }
        let token = hub.next_serial();
        self.ledger.borrow_mut().hand(token, ack.into());
        let message = message::read(msg);
        self.untaken_bytes.set(self.untaken_bytes.get() + msg.payload.len());
        let id = place.sequence.to_string();
        self.outbox.borrow_mut().push(Delivery { token, id, message, count: Some(place.count) });
        self.fed.raise();
        if self.free() == 0 {
            self.feed.close_gate(hub, self, sid);
        }
    }

    /// Takes deliveries to the host until the subscription ends.
    pub(crate) async fn deliver(self: Rc<Self>, mut sink: DeliverySink) {
        let ended = self.ended.wait();
        pin_mut!(ended);
        loop {
            let list = self.outbox.take();
            if list.is_empty() {
                let fed = self.fed.wait();
                pin_mut!(fed);
                if let Either::Left(_) = select(ended.as_mut(), fed).await {
                    break;
                }
                continue;
            }
            let bytes: usize = list.iter().map(|delivery| delivery.message.data.len()).sum();
            let sending = sink.send(list);
            pin_mut!(sending);
            match select(ended.as_mut(), sending).await {
                Either::Left(_) => break,
                Either::Right((Ok(()), _)) => self.is_taken(bytes),
                // Nobody listens any more; what is held stays with the broker.
                Either::Right((Err(_), _)) => {
                    self.live.set(false);
                    self.wake();
                    return;
                }
            }
        }
        let failure = self.failure.take();
        if let Some(failure) = failure {
            sink.end(failure).await;
        }
    }

    fn is_taken(&self, bytes: usize) {
        let left = self.untaken_bytes.get().saturating_sub(bytes);
        self.untaken_bytes.set(if self.outbox.borrow().is_empty() { 0 } else { left });
        if self.feed.is_held_up() {
            self.wake();
        }
    }
}

/// What the host holds of a subscription.
#[derive(Debug)]
pub struct JetStreamSubscription {
    pub(crate) hub: Rc<Hub>,
    pub(crate) sub: Rc<Sub>,
}

/// A settlement on its way: where it stands in the list, and what was asked for.
type Asked = (usize, AckSubject, Verdict);

impl Subscription for JetStreamSubscription {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let mut results = Vec::with_capacity(settlements.len());
        let mut asked: Vec<Asked> = Vec::with_capacity(settlements.len());
        for Settlement { token, verdict } in settlements {
            match self.sub.ledger.borrow_mut().settle(token) {
                Some(ack) => {
                    asked.push((results.len(), ack, verdict));
                    results.push(Ok(()));
                }
                None => {
                    self.hub.stale.set(self.hub.stale.get() + 1);
                    results.push(Err(SettleFailure::Stale));
                }
            }
        }
        if !asked.is_empty() {
            self.tell(asked, &mut results).await;
        }
        results
    }

    async fn pause(&self) {
        self.sub.paused.set(true);
        self.sub.feed.end(&self.hub, STOP_WAIT).await;
    }

    async fn resume(&self) {
        self.sub.paused.set(false);
        self.sub.wake();
    }

    async fn stop(self) {
        stop(&self.hub, &self.sub).await;
    }
}

impl JetStreamSubscription {
    /// Tells the broker in one write, waits for its answers, and gives back the credit.
    async fn tell(&self, asked: Vec<Asked>, results: &mut [Result<(), SettleFailure>]) {
        let wire = &self.hub.wire;
        let (number, patience) = (wire.number(), self.hub.settings.request_wait);
        let bytes = encode(&self.hub, number, &asked);
        let subjects: Vec<AckSubject> = asked.iter().map(|(_, ack, _)| ack.clone()).collect();
        let (taker, answered) = gather(
            asked.len(),
            move |part, subject| subjects.get(part).is_some_and(|ack| **ack == *subject),
            |_, msg| match status(msg.head) {
                None => Ok(()),
                Some(_) => Err(Failure::Transient("the consumer is not there any more".to_owned())),
            },
        );
        let request = Request { number, bytes, taker, deadline: timer::now() + patience };
        let answers = wire.ask(request, answered).await;
        let mut waits = Vec::new();
        let count = asked.len();
        let answers = answers.into_iter().flatten().map(|answer| answer.unwrap_or_else(|lost| Err(lost.failure())));
        let lost = || Err(Failure::Unknown("the connection to NATS was closed".to_owned()));
        for ((index, _, verdict), answer) in asked.into_iter().zip(answers.chain(std::iter::repeat_with(lost))) {
            match (answer, verdict) {
                (Err(failure), _) => results[index] = Err(SettleFailure::Failed(failure)),
                (Ok(()), Verdict::Retry(wait)) if wait > 0 => waits.push(Duration::from_nanos(wait)),
                (Ok(()), _) => {}
            }
        }
        self.sub.ledger.borrow_mut().settled(count, waits.len());
        waits.into_iter().for_each(|wait| keep_credit(&self.sub, wait));
        self.sub.feed.credit_is_back(&self.sub);
    }
}

/// A message that comes again later counts until then.
fn keep_credit(sub: &Rc<Sub>, wait: Duration) {
    let sub = Rc::downgrade(sub);
    task::spawn(async move {
        timer::sleep(wait).await;
        if let Some(sub) = sub.upgrade() {
            sub.ledger.borrow_mut().waited();
            sub.feed.credit_is_back(&sub);
        }
    });
}

fn encode(hub: &Hub, number: u64, asked: &[Asked]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(asked.len() * 160);
    let (mut reply, mut nak) = (String::new(), String::new());
    for (part, (_, ack, verdict)) in asked.iter().enumerate() {
        hub.wire.reply_to(&mut reply, number, part);
        match verdict {
            Verdict::Ack => publish(&mut bytes, ack, Some(&reply), b"+ACK"),
            Verdict::Retry(0) => publish(&mut bytes, ack, Some(&reply), b"-NAK"),
            Verdict::Retry(wait) => {
                nak.clear();
                // Writing into memory cannot fail.
                write!(nak, "-NAK {{\"delay\":{}}}", wait.min(&DELAY_MAX_NANOS)).ok();
                publish(&mut bytes, ack, Some(&reply), nak.as_bytes());
            }
        }
    }
    bytes
}

/// Ends a subscription. What is not settled stays with the broker: every way to give it back would count as a failure.
pub(crate) async fn stop(hub: &Hub, sub: &Rc<Sub>) {
    sub.live.set(false);
    sub.ended.raise();
    sub.wake();
    hub.remove(sub);
    sub.feed.end(hub, STOP_WAIT).await;
}
