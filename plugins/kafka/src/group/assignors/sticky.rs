//! `sticky`: everybody keeps what they have, as far as that is fair.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, Plan, Topics, give, subscribers};

/// See the module.
pub(super) fn assign(claims: &[Claim], partitions: &Topics) -> Plan {
    let mut table = Table::new(claims, partitions);
    table.keep(claims, partitions);
    table.place_the_rest(partitions);
    table.even_out();
    table.plan()
}

/// Leaves out of a plan what somebody else still reads.
pub(super) fn withhold(mut plan: Plan, claims: &[Claim]) -> Plan {
    let mut readers: BTreeMap<(&str, i32), BTreeSet<&str>> = BTreeMap::new();
    for claim in claims {
        for (topic, partitions) in &claim.owned {
            for partition in partitions {
                readers.entry((topic, *partition)).or_default().insert(&claim.member);
            }
        }
    }
    for (member, topics) in &mut plan {
        for (topic, partitions) in topics.iter_mut() {
            partitions.retain(|partition| {
                let readers = readers.get(&(topic.as_str(), *partition));
                readers.is_none_or(|readers| readers.iter().all(|reader| reader == member))
            });
        }
        topics.retain(|_, partitions| !partitions.is_empty());
    }
    plan
}

/// Members and topics by number. Topics with the same subscribers form a class: within one, partitions are alike.
struct Table<'a> {
    members: Vec<&'a str>,
    /// The subscribers of each class.
    classes: Vec<Vec<usize>>,
    class_of: BTreeMap<&'a str, usize>,
    /// What each member has of each class.
    hands: Vec<Vec<Vec<(&'a str, i32)>>>,
    loads: Vec<usize>,
}

impl<'a> Table<'a> {
    fn new(claims: &'a [Claim], partitions: &'a Topics) -> Self {
        let members: BTreeSet<&str> = claims.iter().map(|claim| claim.member.as_str()).collect();
        let members: Vec<&str> = members.into_iter().collect();
        let mut classes: Vec<Vec<usize>> = Vec::new();
        let mut class_of = BTreeMap::new();
        for topic in partitions.keys() {
            let of_topic = subscribers(claims, topic);
            let of_topic: Vec<usize> = of_topic.iter().filter_map(|id| members.binary_search(id).ok()).collect();
            let known = classes.iter().position(|class| *class == of_topic);
            let class = known.unwrap_or_else(|| {
                classes.push(of_topic);
                classes.len() - 1
            });
            class_of.insert(topic.as_str(), class);
        }
        let hands = vec![vec![Vec::new(); classes.len()]; members.len()];
        let loads = vec![0; members.len()];
        Self { members, classes, class_of, hands, loads }
    }

    /// Gives everybody what they have and may keep: of two that claim the same, the one of the later generation.
    fn keep(&mut self, claims: &'a [Claim], partitions: &Topics) {
        let mut newest_first: Vec<&Claim> = claims.iter().collect();
        newest_first.sort_by_key(|claim| (Reverse(claim.generation), &claim.member));
        let mut taken: BTreeSet<(&str, i32)> = BTreeSet::new();
        for claim in newest_first {
            let Ok(member) = self.members.binary_search(&claim.member.as_str()) else { continue };
            for (topic, owned) in claim.owned.iter().filter(|(topic, _)| claim.topics.contains(*topic)) {
                for partition in owned {
                    let exists = partitions.get(topic).is_some_and(|all| all.binary_search(partition).is_ok());
                    if exists && taken.insert((topic, *partition)) {
                        self.hand(member, topic, *partition);
                    }
                }
            }
        }
    }

    /// Gives what nobody has to whoever has the least. First what few may have, so that the others can make up for it.
    fn place_the_rest(&mut self, partitions: &'a Topics) {
        let all = self.hands.iter().flatten().flatten();
        let placed: BTreeSet<(&str, i32)> = all.copied().collect();
        let subscribers = |topic: &str| self.class_of.get(topic).map_or(0, |class| self.classes[*class].len());
        let mut order: Vec<(&String, &Vec<i32>)> = partitions.iter().collect();
        order.sort_by_key(|(topic, _)| subscribers(topic));
        for (topic, partitions) in order {
            for partition in partitions.iter().filter(|partition| !placed.contains(&(topic.as_str(), **partition))) {
                let class = self.class_of.get(topic.as_str()).copied();
                if let Some(member) = class.and_then(|class| self.least_loaded(class)) {
                    self.hand(member, topic, *partition);
                }
            }
        }
    }

    /// Moves one partition at a time from who has the most to who has the least, while that makes a difference. Each
    /// move makes the sum of the squares smaller, so that it ends.
    fn even_out(&mut self) {
        while let Some((giver, class, taker)) = self.next_move() {
            let Some((topic, partition)) = self.hands[giver][class].pop() else { break };
            self.loads[giver] -= 1;
            self.hand(taker, topic, partition);
        }
    }

    fn next_move(&self) -> Option<(usize, usize, usize)> {
        let mut givers: Vec<usize> = (0..self.members.len()).collect();
        givers.sort_by_key(|member| Reverse(self.loads[*member]));
        givers.into_iter().find_map(|giver| {
            let takers = (0..self.classes.len()).filter(|class| !self.hands[giver][*class].is_empty());
            let takers = takers.filter_map(|class| Some((class, self.least_loaded(class)?)));
            let (class, taker) = takers.min_by_key(|(_, taker)| self.loads[*taker])?;
            (self.loads[giver] >= self.loads[taker] + 2).then_some((giver, class, taker))
        })
    }

    fn least_loaded(&self, class: usize) -> Option<usize> {
        self.classes[class].iter().copied().min_by_key(|member| self.loads[*member])
    }

    fn hand(&mut self, member: usize, topic: &'a str, partition: i32) {
        let Some(class) = self.class_of.get(topic) else { return };
        self.hands[member][*class].push((topic, partition));
        self.loads[member] += 1;
    }

    fn plan(self) -> Plan {
        let mut plan = Plan::new();
        for (member, hands) in self.members.iter().zip(self.hands) {
            hands.into_iter().flatten().for_each(|(topic, partition)| give(&mut plan, member, topic, partition));
        }
        plan
    }
}
