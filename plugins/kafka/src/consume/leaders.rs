//! Finding the broker that leads a partition, for all partitions that have none, and again when one has moved.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::timer;

use super::Consumers;
use crate::cluster::To;

/// How long one look may take.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// Looks whenever there is something to look for, until the connection closes.
pub(super) async fn run(hub: Rc<Consumers>) {
    let mut trouble = Backoff::default();
    while !hub.is_closed() {
        for topic in leaderless(&hub) {
            find(&hub, &topic).await;
        }
        // Also where no leader was missing: a partition may only now know where it begins.
        hub.start_fetchers();
        if leaderless(&hub).is_empty() {
            trouble.reset();
            hub.leaderless.wait().await;
        } else {
            timer::sleep(trouble.next_wait()).await;
        }
    }
}

fn leaderless(hub: &Consumers) -> BTreeSet<String> {
    let owned = hub.owned();
    let without = owned.iter().filter(|(_, partition)| partition.leader.get().is_none());
    without.map(|(_, partition)| partition.topic.clone()).collect()
}

async fn find(hub: &Consumers, topic: &str) {
    // Nobody answers, or there is no such topic for now: the next look finds out.
    let Ok(found) = hub.cluster.partitions(topic, LOOK_WAIT).await else { return };
    for (_, partition) in hub.owned() {
        if partition.topic != topic || partition.leader.get().is_some() {
            continue;
        }
        partition.leader.set(found.iter().find(|info| info.id == partition.id).and_then(|info| info.leader));
        if partition.leader.get().is_none() {
            hub.cluster.forget(&To::Leader { topic: topic.to_owned(), partition: partition.id });
        }
    }
}
