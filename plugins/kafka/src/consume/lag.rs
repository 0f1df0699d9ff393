//! Telling the host how far the subscriptions are behind, from what fetching brings anyway. A subscription that has fetched
//! enough fetches nothing until it is taken from, and is asked for then.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Lag, StartPosition, Status, timer};

use super::Consumers;
use crate::group::edge;

/// How often.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Partitions that are asked for at a time.
const ASKED_MAX: usize = 32;

/// Tells what has changed, until the connection closes.
pub(super) async fn run(hub: Rc<Consumers>) {
    let mut told: BTreeMap<(String, String), u64> = BTreeMap::new();
    while !hub.is_closed() {
        timer::sleep(LAG_EVERY).await;
        ask_silent(&hub).await;
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

/// Asks where partitions end of which nothing was heard.
async fn ask_silent(hub: &Consumers) {
    let mut left = ASKED_MAX;
    for (member, sub) in hub.subs() {
        let silent: Vec<_> = sub.partitions.borrow().iter().filter(|one| one.was_silent()).cloned().collect();
        for partition in silent.iter().take(left) {
            left -= 1;
            match edge(&member, partition, StartPosition::Latest).await {
                Ok(end) => partition.ends_at(end),
                // It is of no use to ask for more now.
                Err(_) => return,
            }
        }
    }
}
