//! Topics that come, go and grow: whoever notices joins again, and the partitions are assigned anew.

use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Status, timer};

use super::Member;
use crate::cluster::To;

/// How often a topic that is not there is looked for.
const MISSING_EVERY: Duration = Duration::from_secs(1);

/// How long one look may take.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// Looks for as long as the membership is wanted.
pub(super) async fn run(member: Rc<Member>) {
    let refresh = member.hub.settings().metadata_refresh;
    let mut looked = timer::now();
    while !member.is_closing() {
        timer::sleep(MISSING_EVERY.min(refresh)).await;
        if !member.is_joined() || member.is_joining.get() {
            continue;
        }
        let all = timer::now().saturating_duration_since(looked) >= refresh;
        if all {
            looked = timer::now();
        }
        let shape = member.shape.borrow().clone();
        let joins = member.joins.get();
        let mut changed = false;
        for (topic, count) in shape.into_iter().filter(|(_, count)| all || *count == 0) {
            changed |= has_changed(&member, &topic, count).await;
        }
        if changed && member.joins.get() == joins {
            member.join_again();
        }
    }
}

async fn has_changed(member: &Member, topic: &str, count: usize) -> bool {
    let cluster = &member.hub.cluster;
    cluster.forget(&To::Leader { topic: topic.to_owned(), partition: 0 });
    let Ok(found) = cluster.topic(topic, LOOK_WAIT).await else { return false };
    let now = found.map_or(0, |partitions| partitions.len());
    if now == 0 && count > 0 {
        let what = format!("topic {topic:?} was deleted; if it comes back, group {:?} reads all of it", member.group);
        cluster.health().tell(Status::DataLoss(what));
        if let Some(sub) = member.subs.borrow().get(topic) {
            sub.known_partitions.set(0);
        }
    }
    now != count
}
