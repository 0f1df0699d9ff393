//! Who reads which partition: what a group's leader decides for all of its members. Pure functions, called by `member`.
//!
//! The names and the outcome of `range` and `roundrobin` are those of Kafka's own clients, so that it does not matter
//! which of a group's members leads.

mod range;
mod roundrobin;
mod sticky;

use std::collections::{BTreeMap, BTreeSet};

use crate::config;

/// Partitions by topic, in their order.
pub(crate) type Topics = BTreeMap<String, Vec<i32>>;

/// Partitions by member.
pub(crate) type Plan = BTreeMap<String, Topics>;

/// What a member says when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Its id.
    pub(crate) member: String,
    /// What it subscribes to.
    pub(crate) topics: BTreeSet<String>,
    /// What it reads already.
    pub(crate) owned: Topics,
    /// In which generation it came by that. -1: it does not say.
    pub(crate) generation: i32,
}

/// A way to assign, which all members of a group must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// As `Sticky`; a partition changes hands in two steps, and everything else is read on meanwhile.
    CooperativeSticky,
    /// Of each topic, every member gets a run of neighbours.
    Range,
    /// All partitions in turn.
    RoundRobin,
    /// Balanced, and everybody keeps as much as possible.
    Sticky,
}

impl Strategy {
    /// All of them, the best first.
    pub(crate) const ALL: [Self; 4] = [Self::CooperativeSticky, Self::Range, Self::RoundRobin, Self::Sticky];

    /// As it is called between clients, and in the setting.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
        }
    }

    /// The one of that name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name().eq_ignore_ascii_case(name))
    }

    /// Whether members go on reading what they own while they join again.
    pub(crate) fn is_cooperative(self) -> bool {
        self == Self::CooperativeSticky
    }

    /// Assigns each partition of a topic that somebody subscribes to. In the cooperative one, what another member still
    /// reads is assigned to nobody, until that member has joined again without it.
    pub(crate) fn assign(self, claims: &[Claim], partitions: &Topics) -> Plan {
        let mut plan = match self {
            Self::Range => range::assign(claims, partitions),
            Self::RoundRobin => roundrobin::assign(claims, partitions),
            Self::Sticky => sticky::assign(claims, partitions),
            Self::CooperativeSticky => sticky::withhold(sticky::assign(claims, partitions), claims),
        };
        for claim in claims {
            plan.entry(claim.member.clone()).or_default();
        }
        plan.values_mut().flat_map(BTreeMap::values_mut).for_each(|partitions| partitions.sort_unstable());
        plan
    }
}

impl From<config::Strategy> for Strategy {
    fn from(chosen: config::Strategy) -> Self {
        match chosen {
            config::Strategy::CooperativeSticky => Self::CooperativeSticky,
            config::Strategy::Range => Self::Range,
            config::Strategy::RoundRobin => Self::RoundRobin,
            config::Strategy::Sticky => Self::Sticky,
        }
    }
}

/// The members that subscribe to a topic, by their ids.
fn subscribers<'a>(claims: &'a [Claim], topic: &str) -> Vec<&'a str> {
    let ids = claims.iter().filter(|claim| claim.topics.contains(topic)).map(|claim| claim.member.as_str());
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

fn give(plan: &mut Plan, member: &str, topic: &str, partition: i32) {
    plan.entry(member.to_owned()).or_default().entry(topic.to_owned()).or_default().push(partition);
}

#[cfg(test)]
mod tests;
