//! `range`: of each topic, every subscriber gets a run of neighbours; the first ones get one more where it does not
//! come out even.

use super::{Claim, Plan, Topics, give, subscribers};

/// See the module.
pub(super) fn assign(claims: &[Claim], partitions: &Topics) -> Plan {
    let mut plan = Plan::new();
    for (topic, partitions) in partitions {
        let members = subscribers(claims, topic);
        let (each, extra) = match members.len() {
            0 => continue,
            count => (partitions.len() / count, partitions.len() % count),
        };
        let mut rest = partitions.iter();
        for (index, member) in members.iter().enumerate() {
            let count = each + usize::from(index < extra);
            rest.by_ref().take(count).for_each(|partition| give(&mut plan, member, topic, *partition));
        }
    }
    plan
}
