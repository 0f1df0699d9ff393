//! One subscription: what it holds, what it may still take, and what the host does with it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use futures::pin_mut;
use whimbrel_sdk::{Delivery, DeliverySink, Failure, Message, SettleFailure, Settlement, Subscription, Verdict, timer};

use crate::commands::{self, Place};
use crate::consumers;
use crate::entries::Entry;
use crate::failure::sound;
use crate::fetch::Reader;
use crate::hub::{Hub, PATIENCE};
use crate::ledger::{Held, Ledger, State};
use crate::protocol::EntryId;
use whimbrel_sdk::signal::Signal;

/// Entries named in one command, at most.
pub(crate) const IDS_MAX: usize = 512;

/// Bytes of entries that are fetched at once for one subscription, about.
pub(crate) const FETCH_BYTES: usize = 8 << 20;

/// What an entry is taken to have before any was seen, bytes.
const FIRST_GUESS_BYTES: usize = 512 << 10;

/// How long stopping waits for the broker. What is not done by then is made up for by leases that run out.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// One subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) topic: String,
    pub(crate) reader: Rc<Reader>,
    /// The most entries it may hold.
    limit: usize,
    queue_depth: usize,
    pub(crate) ledger: RefCell<Ledger>,
    /// What the host has not been offered yet.
    outbox: RefCell<Vec<Delivery>>,
    fed: Signal,
    ended: Signal,
    pub(crate) live: Cell<bool>,
    pub(crate) paused: Cell<bool>,
    /// From where on what is pending for this consumer must still be read. None: all was read.
    pub(crate) recover: Cell<Option<EntryId>>,
    /// How often `recover` began anew.
    pub(crate) epoch: Cell<u32>,
    /// The last read brought as much as it asked for.
    pub(crate) hot: Cell<bool>,
    /// The reader asks for this one at the moment.
    pub(crate) reading: Cell<bool>,
    /// What an entry is expected to have, bytes.
    entry_bytes: Cell<usize>,
    /// Read after the subscription was stopped.
    leftover: RefCell<Vec<EntryId>>,
    failure: RefCell<Option<Failure>>,
}

impl Sub {
    /// A subscription that holds nothing.
    pub(crate) fn new(topic: String, reader: Rc<Reader>, limit: usize, queue_depth: usize) -> Rc<Self> {
        Rc::new(Self {
            topic,
            reader,
            limit,
            queue_depth,
            ledger: RefCell::default(),
            outbox: RefCell::default(),
            fed: Signal::default(),
            ended: Signal::default(),
            live: Cell::new(true),
            paused: Cell::new(false),
            recover: Cell::new(Some(EntryId::default())),
            epoch: Cell::new(0),
            hot: Cell::new(false),
            reading: Cell::new(false),
            entry_bytes: Cell::new(FIRST_GUESS_BYTES),
            leftover: RefCell::default(),
            failure: RefCell::default(),
        })
    }

    /// Where its entries are.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { stream: &self.topic, group: &self.reader.group, consumer: &self.reader.consumer }
    }

    /// How many entries to ask for: what the host has room for, what is configured, and what fits into memory.
    pub(crate) fn want(&self) -> usize {
        let credit = self.limit.saturating_sub(self.ledger.borrow().len());
        credit.min(self.queue_depth).min(self.batch())
    }

    /// How many entries fit into memory at once. At least 1.
    pub(crate) fn batch(&self) -> usize {
        (FETCH_BYTES / self.entry_bytes.get().max(1)).clamp(1, IDS_MAX)
    }

    /// What an entry is expected to have, bytes.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes.get()
    }

    /// Whether it may be given anything.
    pub(crate) fn is_open(&self) -> bool {
        self.live.get() && !self.paused.get() && self.want() > 0
    }

    /// Whether what is pending for it must be read first.
    pub(crate) fn must_recover(&self) -> bool {
        self.is_open() && self.recover.get().is_some()
    }

    /// Whether new entries may be read for it.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_open() && self.recover.get().is_none()
    }

    /// Whether its last read has shown that there is nothing more.
    pub(crate) fn has_read_all(&self) -> bool {
        self.is_ready() && !self.hot.get()
    }

    /// Learns from the entries of a reply how large they are. The guess goes up at once and down step by step.
    pub(crate) fn learn(&self, largest: usize) {
        self.entry_bytes.set(largest.max(self.entry_bytes.get() / 2).max(1));
    }

    /// Puts an entry among what goes to the host. `count`: how often the broker has delivered it, this time included.
    pub(crate) fn hand(&self, hub: &Hub, entry: &Entry<'_>, count: u32) {
        self.hand_message(hub, entry.id, entry.text.to_owned(), entry.message(&self.topic), count);
    }

    /// The same with the entry taken apart.
    pub(crate) fn hand_message(&self, hub: &Hub, id: EntryId, text: String, message: Message, count: u32) {
        if !self.live.get() {
            self.leftover.borrow_mut().push(id);
            return;
        }
        let token = self.ledger.borrow_mut().hand(hub.next_serial(), id, Some(count));
        self.outbox.borrow_mut().push(Delivery { token, id: text, message, count: Some(count) });
        self.fed.raise();
    }

    /// See [`Hub::lose_tokens`].
    pub(crate) fn lose_tokens(&self) {
        self.outbox.borrow_mut().clear();
        self.ledger.borrow_mut().forget_handed();
        self.recover_anew();
    }

    /// What is pending for this consumer must be read, from the beginning.
    pub(crate) fn recover_anew(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.recover.set(Some(EntryId::default()));
        // The connection may have broken because a reply was too large to hold.
        self.entry_bytes.set(FETCH_BYTES);
    }

    /// Ends it from our side.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.replace(Some(failure));
        self.live.set(false);
        self.ended.raise();
    }

    /// Takes deliveries to the host until the subscription ends.
    pub(crate) async fn feed(self: Rc<Self>, mut sink: DeliverySink) {
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
            let sending = sink.send(list);
            pin_mut!(sending);
            match select(ended.as_mut(), sending).await {
                Either::Left(_) => break,
                Either::Right((Ok(()), _)) => {}
                // Nobody listens any more; what is held stays with the broker.
                Either::Right((Err(_), _)) => {
                    self.live.set(false);
                    return;
                }
            }
        }
        let failure = self.failure.take();
        if let Some(failure) = failure {
            sink.end(failure).await;
        }
    }

    /// What was fetched and is not settled: never offered to the host, or not finished there.
    fn take_unsettled(&self) -> Vec<EntryId> {
        self.outbox.take();
        let mut ids = self.leftover.take();
        let ledger = self.ledger.borrow();
        ids.extend(ledger.all().filter(|held| held.state == State::Handed).map(|held| held.id));
        ids
    }
}

/// What the host holds of a subscription.
#[derive(Debug)]
pub struct RedisSubscription {
    pub(crate) hub: Rc<Hub>,
    pub(crate) sub: Rc<Sub>,
}

impl Subscription for RedisSubscription {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let mut results = Vec::with_capacity(settlements.len());
        let mut acked = Vec::new();
        for Settlement { token, verdict } in settlements {
            let state = if matches!(verdict, Verdict::Ack) { State::Settling } else { State::Waiting };
            let held = self.sub.ledger.borrow_mut().settle(token, state);
            match (held, verdict) {
                (None, _) => {
                    self.hub.stale.set(self.hub.stale.get() + 1);
                    results.push(Err(SettleFailure::Stale));
                    continue;
                }
                (Some(held), Verdict::Ack) => acked.push((results.len(), held)),
                (Some(held), Verdict::Retry(wait)) => {
                    self.hub.retries.add(&self.sub, held.token, Duration::from_nanos(wait));
                }
            }
            results.push(Ok(()));
        }
        for acked in acked.chunks(IDS_MAX) {
            if let Err(failure) = self.ack(acked).await {
                for (index, _) in acked {
                    results[*index] = Err(SettleFailure::Failed(failure.clone()));
                }
            }
        }
        results
    }

    async fn pause(&self) {
        self.sub.paused.set(true);
        self.sub.reader.wait_for_turn(&self.sub).await;
    }

    async fn resume(&self) {
        self.sub.paused.set(false);
        self.sub.reader.wake();
    }

    async fn stop(self) {
        stop(&self.hub, &self.sub).await;
    }
}

impl RedisSubscription {
    /// Acknowledges, and gives back the credit.
    async fn ack(&self, acked: &[(usize, Held)]) -> Result<(), Failure> {
        let sub = &self.sub;
        let ids: Vec<EntryId> = acked.iter().map(|(_, held)| held.id).collect();
        let mut bytes = Vec::with_capacity(64 + ids.len() * 32);
        commands::ack(&mut bytes, sub.place(), &ids);
        let topic = sub.topic.clone();
        let answered = self.hub.pipe.call(bytes, PATIENCE, move |reply| sound(reply, &topic).map(|_| ())).await;
        let result = answered.unwrap_or_else(|lost| Err(lost.failure()));
        let mut ledger = sub.ledger.borrow_mut();
        for (_, held) in acked {
            ledger.close(held.token);
        }
        drop(ledger);
        // What was not acknowledged is left alone from now on, and claimed like anybody's; without leases by nobody.
        let claims = self.hub.settings.lease.is_some() && self.hub.settings.claim_every.is_some();
        if result.is_err() && !claims {
            sub.recover_anew();
        }
        sub.reader.wake_for(sub);
        result
    }
}

/// Ends a subscription. What is not settled stays with the broker, and is free for others: at once, or, where the host
/// wanted it again later, when that wait is over. Nobody needs to wait for a lease of somebody who has said goodbye.
pub(crate) async fn stop(hub: &Hub, sub: &Rc<Sub>) {
    sub.live.set(false);
    sub.ended.raise();
    hub.remove(sub);
    let farewell = async {
        sub.reader.wait_for_turn(sub).await;
        release(hub, sub, hub.retries.take_of(sub)).await;
        consumers::retire(hub, sub.place()).await;
    };
    timer::timeout(STOP_WAIT, farewell).await;
}

async fn release(hub: &Hub, sub: &Sub, waiting: Vec<(u64, Duration)>) {
    let Some(lease) = hub.settings.lease else {
        // Nobody claims anything.
        return;
    };
    let mut released: Vec<(Vec<EntryId>, Duration)> = {
        let ledger = sub.ledger.borrow();
        let later = waiting.into_iter().filter_map(|(token, left)| Some((ledger.get(token)?.id, left)));
        later.map(|(id, left)| (vec![id], lease.saturating_sub(left))).collect()
    };
    released.extend(sub.take_unsettled().chunks(IDS_MAX).map(|ids| (ids.to_vec(), commands::RELEASED)));
    let calls = released.iter().map(|(ids, idle)| {
        let mut bytes = Vec::new();
        commands::release(&mut bytes, sub.place(), ids, *idle);
        hub.pipe.call(bytes, STOP_WAIT, |_| ())
    });
    join_all(calls).await;
}
