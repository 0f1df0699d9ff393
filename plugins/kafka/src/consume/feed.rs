//! Taking messages to the host: what is due again first, then what was fetched, as far as there is credit.

use std::rc::Rc;
use std::time::Instant;

use futures::future::{Either, select};
use futures::pin_mut;
use whimbrel_sdk::{Delivery, DeliverySink, log, timer};

use super::Consumers;
use super::partition::Partition;
use super::subscription::Sub;
use crate::records;

/// Messages of one list, at most: enough to make what a list costs small.
const LIST_MAX: usize = 512;

/// Messages of one partition before it is another one's turn.
const TURN_MAX: usize = 64;

/// Bytes of messages that one subscription holds, about, its last one not counted. What the host works on is kept here
/// too, in case it wants it again.
const HELD_MAX_BYTES: usize = 24 << 20;

/// Takes deliveries to the host until the subscription ends. True: the host has gone without a word.
pub(crate) async fn feed(hub: &Rc<Consumers>, sub: &Rc<Sub>, mut sink: DeliverySink) -> bool {
    let ended = sub.ended.wait();
    pin_mut!(ended);
    loop {
        let now = timer::now();
        let list = take(hub, sub, now);
        if list.is_empty() {
            let next = sub.retries.borrow().first().map(|(at, _)| at.saturating_duration_since(now));
            let waking = async {
                match next {
                    None => sub.fed.wait().await,
                    Some(wait) => timer::timeout(wait, sub.fed.wait()).await.unwrap_or_default(),
                }
            };
            pin_mut!(waking);
            if let Either::Left(_) = select(ended.as_mut(), waking).await {
                break;
            }
            continue;
        }
        let sending = sink.send(list);
        pin_mut!(sending);
        match select(ended.as_mut(), sending).await {
            Either::Left(_) => break,
            Either::Right((Ok(()), _)) => {}
            Either::Right((Err(_), _)) => return true,
        }
    }
    let failure = sub.failure.take();
    if let Some(failure) = failure {
        sink.end(failure).await;
    }
    false
}

/// What can be delivered now.
fn take(hub: &Consumers, sub: &Sub, now: Instant) -> Vec<Delivery> {
    if !sub.is_live.get() {
        return Vec::new();
    }
    let mut list = Vec::new();
    take_due(hub, sub, now, &mut list);
    if !sub.is_paused.get() {
        take_new(hub, sub, now, &mut list);
    }
    list
}

fn take_due(hub: &Consumers, sub: &Sub, now: Instant, list: &mut Vec<Delivery>) {
    let (mut retries, mut ledger) = (sub.retries.borrow_mut(), sub.ledger.borrow_mut());
    while list.len() < LIST_MAX && retries.first().is_some_and(|(at, _)| *at <= now) {
        let Some((_, token)) = retries.pop_first() else { break };
        // Given up meanwhile, perhaps.
        if let Some((token, held)) = ledger.hand_again(token, hub.next_serial()) {
            list.push(delivery(hub, &held.partition, &held.record, token, held.count));
        }
    }
}

fn take_new(hub: &Consumers, sub: &Sub, now: Instant, list: &mut Vec<Delivery>) {
    let partitions = sub.partitions.borrow().clone();
    let mut idle = 0;
    let before = list.len();
    while idle < partitions.len() && has_room(sub, list.len()) {
        let turn = sub.turn.get() % partitions.len();
        sub.turn.set(turn + 1);
        let taken = list.len();
        take_turn(hub, sub, &partitions[turn], now, list);
        idle = if list.len() > taken { 0 } else { idle + 1 };
    }
    if list.len() > before {
        hub.wake_fetchers();
    }
}

fn take_turn(hub: &Consumers, sub: &Sub, partition: &Rc<Partition>, now: Instant, list: &mut Vec<Delivery>) {
    for _ in 0..TURN_MAX {
        if !has_room(sub, list.len()) {
            return;
        }
        match partition.next() {
            Ok(Some(record)) => {
                let record = Rc::new(record);
                let token = sub.ledger.borrow_mut().hand(hub.next_serial(), partition, &record);
                list.push(delivery(hub, partition, &record, token, 1));
            }
            Ok(None) => return,
            Err(why) => {
                let wait = partition.rest(now);
                let (topic, id) = (&partition.topic, partition.id);
                log::error(&format!("topic {topic:?}, partition {id}: {why}; fetched again in {wait:?}"));
                return;
            }
        }
    }
}

fn has_room(sub: &Sub, list: usize) -> bool {
    let ledger = sub.ledger.borrow();
    let fits = ledger.bytes() < HELD_MAX_BYTES || ledger.len() == 0;
    list < LIST_MAX && ledger.len() < sub.limit && fits
}

fn delivery(hub: &Consumers, partition: &Partition, record: &records::Record, token: u64, count: u32) -> Delivery {
    let id = format!("{}-{}", partition.id, record.offset);
    let message = records::to_delivery_message(&partition.topic, partition.id, record.clone(), hub.settings());
    // The first time here may not be the first time for the group: Kafka does not count.
    Delivery { token, id, message, count: (count > 1).then_some(count) }
}
