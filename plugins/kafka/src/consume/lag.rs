//! Telling the host how far the subscriptions are behind, from what fetching brings anyway.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Lag, Status, timer};

use super::Consumers;

/// How often.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Tells what has changed, until the connection closes.
pub(super) async fn run(hub: Rc<Consumers>) {
    let mut told: BTreeMap<(String, String), u64> = BTreeMap::new();
    while !hub.is_closed() {
        timer::sleep(LAG_EVERY).await;
        let mut now: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (member, sub) in hub.subs() {
            let messages: u64 = sub.partitions.borrow().iter().map(|partition| partition.behind()).sum();
            *now.entry((sub.topic.clone(), member.group.clone())).or_default() += messages;
        }
        for ((topic, group), messages) in &now {
            if told.get(&(topic.clone(), group.clone())) != Some(messages) {
                let lag = Lag { topic: topic.clone(), group: group.clone(), messages: *messages };
                hub.cluster.health().tell(Status::Lag(lag));
            }
        }
        told = now;
    }
}
