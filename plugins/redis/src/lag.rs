//! Telling the host how far the groups are behind. Redis is asked only where something is left unread: a subscription that
//! has room for more and whose last read was not full has read everything.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use whimbrel_sdk::{Lag, Status, timer};

use crate::commands;
use crate::entries;
use crate::hub::{Hub, PATIENCE};
use crate::subscription::Sub;

/// How often.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Groups that Redis is asked about, or the host is told of, at a time; the others have their turn at the next.
const GROUPS_MAX: usize = 32;

/// Tells what has changed, for as long as the connection lives.
pub(crate) async fn run(hub: Weak<Hub>) {
    let mut told: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut turn = 0;
    loop {
        timer::sleep(LAG_EVERY).await;
        let Some(hub) = hub.upgrade() else { return };
        let mut subs = hub.subs();
        told.retain(|(topic, group), _| subs.iter().any(|sub| sub.topic == *topic && sub.reader.group == *group));
        let first = turn % subs.len().max(1);
        subs.rotate_left(first);
        turn += GROUPS_MAX;
        let is_news = |sub: &Rc<Sub>| {
            let key = (sub.topic.clone(), sub.reader.group.clone());
            !(sub.has_read_all() && told.get(&key) == Some(&0))
        };
        subs.retain(is_news);
        for sub in subs.iter().take(GROUPS_MAX) {
            let messages = if sub.has_read_all() { Some(0) } else { ask(&hub, sub).await };
            let (topic, group) = (sub.topic.clone(), sub.reader.group.clone());
            if let Some(messages) = messages
                && told.insert((topic.clone(), group.clone()), messages) != Some(messages)
            {
                hub.health.tell(Status::Lag(Lag { topic, group, messages }));
            }
        }
    }
}

async fn ask(hub: &Hub, sub: &Sub) -> Option<u64> {
    let mut bytes = Vec::new();
    commands::groups(&mut bytes, &sub.topic);
    let group = sub.reader.group.clone();
    hub.pipe.call(bytes, PATIENCE, move |reply| entries::lag(reply, &group)).await.ok().flatten()
}
