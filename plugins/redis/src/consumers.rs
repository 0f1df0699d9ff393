//! The names of consumers at the broker, of which every instance leaves one behind. They go when nothing is pending for
//! them, and never before: a consumer that is deleted takes what is pending for it along.

use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::timer;

use crate::commands::{self, Place};
use crate::entries;
use crate::hub::{Hub, PATIENCE};
use crate::subscription::Sub;

/// A consumer that asked for nothing for this long is taken for dead. A live one asks every few seconds.
const DEAD_AFTER: Duration = Duration::from_secs(3600);

/// How often dead consumers are looked for, besides at each subscribe.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Deletes a consumer unless something is pending for it. Where the user may not (`EVAL`), it stays.
pub(crate) async fn retire(hub: &Hub, place: Place<'_>) {
    let mut bytes = Vec::new();
    commands::retire(&mut bytes, place);
    hub.pipe.call(bytes, PATIENCE, |_| ()).await.ok();
}

/// Deletes the dead consumers of a subscription's group.
pub(crate) async fn sweep(hub: &Hub, sub: &Sub) {
    let place = sub.place();
    let mut bytes = Vec::new();
    commands::consumers(&mut bytes, place.stream, place.group);
    let all = hub.pipe.call(bytes, PATIENCE, entries::consumers).await.unwrap_or_default();
    let prefix = format!("{}:", place.group);
    let is_dead = |consumer: &entries::Consumer| {
        let idle = Duration::from_millis(u64::try_from(consumer.idle_millis).unwrap_or(0));
        // Other programs name their consumers otherwise, and look after them themselves.
        consumer.pending == 0
            && idle > DEAD_AFTER
            && consumer.name.starts_with(&prefix)
            && consumer.name != place.consumer
    };
    for consumer in all.iter().filter(|consumer| is_dead(consumer)) {
        retire(hub, Place { consumer: &consumer.name, ..place }).await;
    }
}

/// Looks after all subscriptions from time to time, for as long as there is somebody to look after them for.
pub(crate) async fn keep_swept(hub: std::rc::Weak<Hub>) {
    loop {
        timer::sleep(SWEEP_EVERY).await;
        let Some(hub) = hub.upgrade() else { return };
        let subs: Vec<Rc<Sub>> = hub.subs();
        for sub in subs {
            sweep(&hub, &sub).await;
        }
    }
}
