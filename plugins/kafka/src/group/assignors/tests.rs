use super::*;
use fastrand::Rng;

fn claim(member: &str, topics: &[&str], owned: &[(&str, &[i32])]) -> Claim {
    Claim {
        member: member.to_owned(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        owned: owned.iter().map(|(topic, partitions)| ((*topic).to_owned(), partitions.to_vec())).collect(),
        generation: 1,
    }
}

fn topics(counts: &[(&str, i32)]) -> Topics {
    counts.iter().map(|(topic, count)| ((*topic).to_owned(), (0..*count).collect())).collect()
}

fn of<'a>(plan: &'a Plan, member: &str, topic: &str) -> &'a [i32] {
    plan.get(member).and_then(|topics| topics.get(topic)).map_or(&[], Vec::as_slice)
}

#[test]
fn range_gives_neighbours_and_the_first_get_more() {
    let claims = [claim("a", &["t", "u"], &[]), claim("b", &["t", "u"], &[]), claim("c", &["t"], &[])];
    let plan = Strategy::Range.assign(&claims, &topics(&[("t", 7), ("u", 3)]));
    assert_eq!(of(&plan, "a", "t"), [0, 1, 2]);
    assert_eq!(of(&plan, "b", "t"), [3, 4]);
    assert_eq!(of(&plan, "c", "t"), [5, 6]);
    assert_eq!((of(&plan, "a", "u"), of(&plan, "b", "u")), ([0, 1].as_slice(), [2].as_slice()));
}

#[test]
fn roundrobin_passes_over_who_does_not_subscribe() {
    let claims = [claim("a", &["t"], &[]), claim("b", &["t", "u"], &[]), claim("c", &["u"], &[])];
    let plan = Strategy::RoundRobin.assign(&claims, &topics(&[("t", 3), ("u", 2), ("v", 2)]));
    assert_eq!((of(&plan, "a", "t"), of(&plan, "b", "t")), ([0, 2].as_slice(), [1].as_slice()));
    assert_eq!((of(&plan, "b", "u"), of(&plan, "c", "u")), ([0].as_slice(), [1].as_slice()));
    assert!(plan.values().all(|topics| !topics.contains_key("v")));
}

#[test]
fn sticky_keeps_what_is_fair() {
    let claims = [claim("a", &["t"], &[("t", &[0, 1, 2, 3])]), claim("b", &["t"], &[("t", &[4, 5])])];
    let plan = Strategy::Sticky.assign(&claims, &topics(&[("t", 6)]));
    assert_eq!((of(&plan, "a", "t").len(), of(&plan, "b", "t").len()), (3, 3));
    assert!(of(&plan, "b", "t").starts_with(&[4, 5]) || of(&plan, "b", "t").ends_with(&[4, 5]));
}

#[test]
fn the_later_generation_has_it() {
    let mut old = claim("a", &["t"], &[("t", &[0])]);
    old.generation = 0;
    let claims = [old, claim("b", &["t"], &[("t", &[0])])];
    assert_eq!(of(&Strategy::Sticky.assign(&claims, &topics(&[("t", 1)])), "b", "t"), [0]);
    // While the other one still reads it, nobody gets it.
    let plan = Strategy::CooperativeSticky.assign(&claims, &topics(&[("t", 1)]));
    assert!(plan.values().all(Topics::is_empty) && plan.len() == 2, "{plan:?}");
}

#[test]
fn names() {
    for strategy in Strategy::ALL {
        assert_eq!(Strategy::of_name(strategy.name()), Some(strategy));
    }
    assert_eq!(Strategy::of_name("Range"), Some(Strategy::Range));
    assert_eq!(Strategy::of_name("random"), None);
}

/// A group of random members and topics; some subscribe to all, some to a part.
fn random(rng: &mut Rng, same: bool) -> (Vec<Claim>, Topics) {
    let counts: Topics = (0..rng.u8(1..6)).map(|t| (format!("t{t}"), (0..rng.i32(0..13)).collect())).collect();
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    let members = (0..rng.u8(1..8)).map(|member| {
        let chosen: Vec<&str> = names.iter().copied().filter(|_| same || rng.bool()).collect();
        claim(&format!("m{member}"), &chosen, &[])
    });
    (members.collect(), counts)
}

/// What a member says the next time it joins, after it got its part.
fn after(claims: &[Claim], plan: &Plan) -> Vec<Claim> {
    let owned = |claim: &Claim| plan.get(&claim.member).cloned().unwrap_or_default();
    claims.iter().map(|claim| Claim { owned: owned(claim), ..claim.clone() }).collect()
}

fn all_of(plan: &Plan) -> Vec<(&String, i32)> {
    plan.values().flatten().flat_map(|(topic, list)| list.iter().map(move |partition| (topic, *partition))).collect()
}

fn loads(plan: &Plan) -> Vec<usize> {
    plan.values().map(|topics| topics.values().map(Vec::len).sum()).collect()
}

/// Each partition that anybody subscribes to exactly once, and nobody gets what they did not ask for.
fn check_exactly_once(claims: &[Claim], partitions: &Topics, plan: &Plan, what: &str) {
    let wanted: usize = partitions
        .iter()
        .filter(|(topic, _)| claims.iter().any(|claim| claim.topics.contains(*topic)))
        .map(|(_, list)| list.len())
        .sum();
    let all = all_of(plan);
    assert_eq!(all.len(), wanted, "{what}");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), wanted, "{what}");
    for claim in claims {
        assert!(plan[&claim.member].keys().all(|topic| claim.topics.contains(topic)), "{what}");
    }
}

#[test]
fn every_partition_goes_to_one_subscriber() {
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        let same = rng.bool();
        let (claims, partitions) = random(&mut rng, same);
        for strategy in Strategy::ALL {
            let plan = strategy.assign(&claims, &partitions);
            check_exactly_once(&claims, &partitions, &plan, &format!("seed {seed}, {strategy:?}"));
            if same && strategy != Strategy::Range {
                let loads = loads(&plan);
                let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
                assert!(spread <= 1, "seed {seed}, {strategy:?}: {loads:?}");
            }
        }
    }
}

#[test]
fn sticky_moves_no_more_than_it_must() {
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        let (claims, partitions) = random(&mut rng, true);
        let plan = Strategy::Sticky.assign(&claims, &partitions);
        let mut claims = after(&claims, &plan);
        assert_eq!(Strategy::Sticky.assign(&claims, &partitions), plan, "seed {seed}: nothing has changed");
        let total: usize = loads(&plan).iter().sum();
        if rng.bool() && claims.len() > 1 {
            let gone = claims.remove(rng.usize(0..claims.len()));
            let next = Strategy::Sticky.assign(&claims, &partitions);
            let moved = moved(&plan, &next);
            assert_eq!(moved, plan[&gone.member].values().map(Vec::len).sum::<usize>(), "seed {seed}: one has left");
        } else {
            claims.push(Claim { topics: claims[0].topics.clone(), ..claim("new", &[], &[]) });
            let next = Strategy::Sticky.assign(&claims, &partitions);
            assert!(moved(&plan, &next) <= total.div_ceil(claims.len()), "seed {seed}: one has come");
        }
    }
}

/// How many partitions have another owner.
fn moved(before: &Plan, now: &Plan) -> usize {
    let owners = |plan: &Plan| -> BTreeMap<(String, i32), String> {
        let of_member = |(member, topics): (&String, &Topics)| {
            let member = member.clone();
            let pairs = topics.iter().flat_map(|(topic, list)| list.iter().map(move |one| (topic.clone(), *one)));
            pairs.map(|pair| (pair, member.clone())).collect::<Vec<_>>()
        };
        plan.iter().flat_map(of_member).collect()
    };
    let (before, now) = (owners(before), owners(now));
    now.iter().filter(|(partition, owner)| before.get(*partition) != Some(owner)).count()
}

/// Two steps, and at no time two readers of one partition.
#[test]
fn cooperative_rounds_end_with_all_partitions_and_never_with_two_readers() {
    for seed in 0..2000 {
        let mut rng = Rng::with_seed(seed);
        let same = rng.bool();
        let (claims, partitions) = random(&mut rng, same);
        let mut claims = after(&claims, &Strategy::CooperativeSticky.assign(&claims, &partitions));
        // Somebody comes, somebody may go, and somebody changes what they subscribe to.
        claims.push(claim("new", &["t0", "t1"], &[]));
        if rng.bool() {
            claims.remove(0);
        }
        claims[0].topics.remove("t0");
        claims[0].owned.remove("t0");
        for round in 0..3 {
            let plan = Strategy::CooperativeSticky.assign(&claims, &partitions);
            for claim in &claims {
                for (topic, list) in &plan[&claim.member] {
                    let others = claims.iter().filter(|other| other.member != claim.member);
                    let read: Vec<i32> = others.filter_map(|other| other.owned.get(topic)).flatten().copied().collect();
                    assert!(list.iter().all(|partition| !read.contains(partition)), "seed {seed}, round {round}");
                }
            }
            claims = after(&claims, &plan);
            if round == 2 {
                check_exactly_once(&claims, &partitions, &plan, &format!("seed {seed}"));
            }
        }
    }
}

#[test]
fn many_members_and_partitions_take_no_time() {
    let names: Vec<String> = (0..300).map(|topic| format!("t{topic}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut claims: Vec<Claim> = (0..100).map(|member| claim(&format!("m{member:03}"), &names, &[])).collect();
    let partitions = topics(&names.iter().map(|name| (*name, 30)).collect::<Vec<_>>());
    claims[0].owned = partitions.clone();
    let since = std::time::Instant::now();
    let plan = Strategy::CooperativeSticky.assign(&claims, &partitions);
    // An instance that gives the host no turn for a second is interrupted; this build is not optimised.
    assert!(since.elapsed() < std::time::Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(plan["m000"].values().map(Vec::len).sum::<usize>(), 90);
}
