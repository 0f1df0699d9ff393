//! A group's offset that the broker does not have: older than everything it keeps, or newer.

use std::rc::Rc;

use whimbrel_sdk::{StartPosition, Status};

use super::partition::Partition;
use super::subscription::Sub;
use crate::group::{Member, edge};

/// Begins anew where the fewest messages are missed, and says so. On failure the next fetch comes here again.
pub(super) async fn reset(member: Rc<Member>, sub: Rc<Sub>, partition: Rc<Partition>, offset: i64) {
    let Ok(earliest) = edge(&member, &partition, StartPosition::Earliest).await else { return };
    let (begin, why) = if offset < earliest {
        (earliest, format!("{} messages were deleted before they were read", earliest - offset))
    } else {
        // A log that is there from its first message on was made anew, or cut short by the loss of a replica: everything
        // in it may be news.
        let start = if earliest == 0 { StartPosition::Earliest } else { sub.start_of(partition.id) };
        let Ok(begin) = edge(&member, &partition, start).await else { return };
        (begin, "the broker has lost messages that were read already".to_owned())
    };
    if !partition.is_ours.get() {
        return;
    }
    let (topic, id) = (&partition.topic, partition.id);
    let what = format!("topic {topic:?}, partition {id}, group {:?}: {why}; reading on at {begin}", member.group);
    member.hub.cluster.health().tell(Status::DataLoss(what));
    sub.ledger.borrow_mut().forget_all_of(&partition);
    partition.begin(begin, "");
    partition.is_well();
    partition.is_dirty.set(true);
    member.hub.wake_fetchers();
}
