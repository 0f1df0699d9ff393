//! Tells the broker from time to time what is still being worked on, so that no other consumer claims it: what the host
//! has not settled, and what waits for its next attempt.

use std::rc::Weak;
use std::time::{Duration, Instant};

use whimbrel_sdk::{log, timer};

use crate::commands;
use crate::hub::Hub;
use crate::ledger::{Ledger, State};
use crate::pipe::{Answer, Request, Taker};
use crate::protocol::EntryId;
use crate::subscription::{IDS_MAX, Sub};

/// A lease is refreshed when this part of it is over, so that one refresh may fail.
const PART: u32 = 3;

/// Refreshes for as long as the connection is open.
pub(crate) async fn keep(hub: Weak<Hub>, lease: Duration) {
    let period = lease / PART;
    let mut before = 0;
    loop {
        timer::sleep(period).await;
        let Some(hub) = hub.upgrade() else { return };
        // What was handed out since the last time is young enough: mostly it will be settled before the next.
        for sub in hub.subs() {
            refresh(&hub, &sub, before, period);
        }
        before = hub.serial();
    }
}

fn refresh(hub: &Hub, sub: &Sub, before: u64, period: Duration) {
    let ledger = sub.ledger.borrow();
    let old = ledger.all().filter(|held| held.state != State::Settling && Ledger::is_older(held.token, before));
    let ids: Vec<EntryId> = old.map(|held| held.id).collect();
    drop(ledger);
    for ids in ids.chunks(IDS_MAX) {
        let mut bytes = Vec::with_capacity(64 + ids.len() * 32);
        commands::refresh(&mut bytes, sub.place(), ids);
        let topic = sub.topic.clone();
        let taker: Taker = Box::new(move |answer| {
            if let Answer::Reply(reply) = answer
                && let Some(error) = reply.error()
            {
                log::warn(&format!("the lease of messages of {topic:?} could not be refreshed: {error}"));
            }
        });
        hub.pipe.submit(Request { bytes, replies: 1, taker, deadline: Instant::now() + period });
    }
}
