//! Tells the broker that what is held is still in work (`+WPI`), before it gives it to somebody else.

use std::rc::{Rc, Weak};

use whimbrel_sdk::timer;

use crate::hub::Hub;
use crate::protocol::publish;
use crate::subscription::Sub;

/// A lease is renewed so many times before it runs out.
const RENEWALS: u32 = 3;

/// Looks after the leases of a subscription for as long as it lives.
pub(crate) async fn keep(hub: Weak<Hub>, sub: Weak<Sub>) {
    loop {
        let Some(lease) = sub.upgrade().map(|sub| sub.lease()) else { return };
        timer::sleep(lease / RENEWALS).await;
        let (Some(hub), Some(sub)) = (hub.upgrade(), sub.upgrade()) else { return };
        if !sub.is_live() {
            return;
        }
        renew(&hub, &sub);
    }
}

fn renew(hub: &Hub, sub: &Rc<Sub>) {
    let mut bytes = Vec::new();
    sub.each_held(|ack| publish(&mut bytes, ack, None, b"+WPI"));
    if !bytes.is_empty() {
        hub.wire.say(bytes);
    }
}
