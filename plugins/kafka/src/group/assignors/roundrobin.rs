//! `roundrobin`: all partitions of all topics in turn; whoever does not subscribe to a topic is passed over.

use std::collections::BTreeMap;

use super::{Claim, Plan, Topics, give};

/// See the module.
pub(super) fn assign(claims: &[Claim], partitions: &Topics) -> Plan {
    let claims: BTreeMap<&str, &Claim> = claims.iter().map(|claim| (claim.member.as_str(), claim)).collect();
    let mut plan = Plan::new();
    let mut turn = claims.values().cycle();
    for (topic, partitions) in partitions {
        if !claims.values().any(|claim| claim.topics.contains(topic)) {
            continue;
        }
        for partition in partitions {
            if let Some(claim) = turn.by_ref().find(|claim| claim.topics.contains(topic)) {
                give(&mut plan, &claim.member, topic, *partition);
            }
        }
    }
    plan
}
