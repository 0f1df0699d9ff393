//! Settling: acknowledged is over, a retry comes again after its wait, what is in hand stays in hand, a token is good once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::{Arrived, SettleError, Verdict};

use super::{LEASE_SPARE, deposit, exchange, hold, read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{ARRIVE_WAIT, Inbox, Instance, Payload, Rig, number};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "D5",
        title: "a failed message comes again",
        expects: "of ten messages the first two and every fifth fail once: each of them is delivered again",
        cause: "a retry that acknowledges or drops, or one that is kept in memory and forgotten",
        read: read::SETTLING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(comes_again(rig)),
    },
    Check {
        id: "D8",
        title: "settles lists, one answer for each verdict",
        expects: "eleven verdicts given at once are each answered with ok, and none of the messages comes again",
        cause: "answers that are not in the order of the verdicts, or another number of them",
        read: read::SETTLING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(lists(rig)),
    },
    Check {
        id: "B3",
        title: "failed messages come again until they are acknowledged",
        expects: "of 100 messages every fifth fails twice: each comes a second and a third time, counted where counts are known, and no acknowledged one ever comes back",
        cause: "an acknowledgement that is not sent, or sent for another message",
        read: read::SETTLING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(until_acked(rig)),
    },
    Check {
        id: "B11",
        title: "of a list, only the failed ones come again",
        expects: "eleven verdicts given at once, three of them retries: those three come again and no other",
        cause: "one verdict for the whole list, or an acknowledgement up to a position that takes in what failed",
        read: read::SETTLING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(partly(rig)),
    },
    Check {
        id: "B12",
        title: "the delivery count grows",
        expects: "a message that fails twice is delivered with counts that grow each time, the first at least 1",
        cause: "a count of the adapter's own that starts again, or one that is always 1",
        read: read::SUBSCRIBING,
        needs: &[Need::Count],
        bound: None,
        run: |rig| Box::pin(counts(rig)),
    },
    Check {
        id: "B13",
        title: "leaves dead-lettering to the host",
        expects: "a message that fails five times comes a sixth time; after the host has published it to the dead-letter topic, with reason and original topic, and acknowledged it, it is there and nowhere else",
        cause: "a limit of deliveries at the broker or in the adapter, or a dead-letter queue that the resource did not ask for",
        read: read::SETTLING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(dead_letters(rig)),
    },
    Check {
        id: "C3",
        title: "what is in hand is not delivered again",
        expects: "a message that is held for three leases is not delivered a second time, to nobody of the group, and can be acknowledged",
        cause: "a lease that is not kept alive",
        read: read::SETTLING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(leases(rig)),
    },
    Check {
        id: "C5",
        title: "a retry waits its time",
        expects: "a message to be retried in 1.5 s comes again after that and not before, and others pass meanwhile where `delay` is declared",
        cause: "a wait that is not handed to the broker, or one that holds up the whole subscription",
        read: read::SETTLING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(waits(rig)),
    },
    Check {
        id: "C12",
        title: "a message keeps its id",
        expects: "a message that comes again has the id it had before",
        cause: "an id of the delivery in place of the message's",
        read: read::SUBSCRIBING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(ids(rig)),
    },
    Check {
        id: "C6",
        title: "a token is good once",
        expects: "a token that was settled, and one that was never handed out, are answered with `stale`",
        cause: "success without a look at the token",
        read: read::SETTLING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(tokens(rig)),
    },
];

/// The wait of a retry that should come soon.
const SOON: Duration = Duration::from_millis(100);

/// How long other copies of what just came are passed over: they are for another check to find.
const COPIES: Duration = Duration::from_millis(50);

/// The wait of the retry that is measured.
const LATER: Duration = Duration::from_millis(1500);

/// How much too early by the clock a retry may come.
const EARLY_MAX: Duration = Duration::from_millis(20);

/// Failures that a message outlives.
const FAILURES: usize = 5;

/// A token that nobody was given.
const NO_TOKEN: u64 = u64::MAX - 7;

/// How long a message that failed may take to come again.
fn again_wait(rig: &Rig) -> Duration {
    rig.lease() + LEASE_SPARE
}

/// Takes numbered messages until all have come and all that failed have come again: `fails` says whether a delivery fails,
/// by its number and how often that message has come. The deliveries of each number.
async fn work(
    inbox: &mut Inbox,
    wanted: std::ops::Range<usize>,
    within: Duration,
    fails: impl Fn(usize, usize) -> bool,
) -> Result<BTreeMap<usize, Vec<Arrived>>, Wrong> {
    let mut missing: BTreeSet<usize> = wanted.collect();
    // By id, for a message may be stored twice where a publish was repeated.
    let (mut failed, mut times) = (HashMap::new(), HashMap::new());
    let mut came: BTreeMap<usize, Vec<Arrived>> = BTreeMap::new();
    let mut until = Instant::now() + within;
    while !(missing.is_empty() && failed.is_empty()) {
        let Some(arrived) = inbox.next_until(until).await else {
            return Err(late(missing.len(), failed.values().min().copied(), within));
        };
        let number = number(&arrived)?;
        missing.remove(&number);
        let time: &mut usize = times.entry(arrived.id.clone()).or_default();
        *time += 1;
        if fails(number, *time) {
            inbox.retry(&arrived, SOON).await?;
            failed.insert(arrived.id.clone(), number);
        } else {
            inbox.ack(&arrived).await?;
            failed.remove(&arrived.id);
        }
        came.entry(number).or_default().push(arrived);
        until = Instant::now() + within;
    }
    Ok(came)
}

fn late(missing: usize, failed: Option<usize>, within: Duration) -> Wrong {
    let within = within.as_secs();
    match failed {
        Some(number) => Wrong::of("D5", format!("message {number} failed and did not come again within {within} s")),
        None => Wrong::of("D6", format!("{missing} messages did not arrive within {within} s")),
    }
}

async fn comes_again(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 20).await?;
    let working = work(&mut inbox, 0..10, again_wait(rig), |number, time| (number < 2 || number % 5 == 4) && time == 1);
    let worked = tokio::try_join!(deposit(&instance, &topic, Payload::numbered(0..10)), working);
    // What was acknowledged behind the host's back cannot come again.
    worked.map_err(|wrong| wrong.passed_on("D5", "B9"))?;
    Ok(Finding::Passed)
}

async fn lists(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 20).await?;
    deposit(&instance, &topic, Payload::numbered(0..11)).await?;
    let held = hold(&mut inbox, 11).await?;
    let answers = inbox.settle_all(held.iter().map(|arrived| (arrived.token, Verdict::Ack)).collect()).await;
    if let Some((index, Err(error))) = answers.iter().enumerate().find(|(_, answer)| answer.is_err()) {
        return Err(Wrong::new(format!("the answer to verdict {} of 11: {error}", index + 1)));
    }
    let ids: HashSet<&str> = held.iter().map(|arrived| arrived.id.as_str()).collect();
    inbox.watch(COPIES).await;
    let again = inbox.watch(rig.lease() + SOON).await;
    if again.iter().any(|arrived| ids.contains(arrived.id.as_str())) {
        return Err(Wrong::of("B3", "an acknowledged message came again"));
    }
    Ok(Finding::Passed)
}

async fn until_acked(rig: &Rig) -> Tested {
    let (instance, topic, group) = (rig.instance("one").await?, rig.topic("t").await?, rig.group("g"));
    let mut inbox = subscribe(&instance, &topic, &group, 50).await?;
    let working = work(&mut inbox, 0..100, again_wait(rig), |number, time| number % 5 == 0 && time <= 2);
    let ((), came) = tokio::try_join!(deposit(&instance, &topic, Payload::numbered(0..100)), working)?;
    let counted = rig.features().delivery_count;
    for (number, times) in came.iter().filter(|(number, _)| *number % 5 == 0) {
        let most = times.iter().filter_map(|arrived| arrived.count).max();
        if counted && most.is_none_or(|count| count < 2) {
            return Err(Wrong::of(
                "B12",
                format!("message {number} came {} times, with counts up to {most:?}", times.len()),
            ));
        }
    }
    inbox.stop().await?;
    let mut next = subscribe(&instance, &topic, &group, 50).await?;
    let back = next.watch(rig.lease() + Duration::from_secs(1)).await;
    if let Some(arrived) = back.first() {
        return Err(Wrong::new(format!("message {} came back after it was acknowledged", number(arrived)?)));
    }
    Ok(Finding::Passed)
}

async fn partly(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 20).await?;
    deposit(&instance, &topic, Payload::numbered(0..11)).await?;
    let held = hold(&mut inbox, 11).await?;
    inbox.watch(COPIES).await;
    let verdict = |index: usize| if index.is_multiple_of(5) { Verdict::Retry(SOON) } else { Verdict::Ack };
    let failed: HashSet<String> = held.iter().step_by(5).map(|arrived| arrived.id.clone()).collect();
    let verdicts = held.iter().enumerate().map(|(index, arrived)| (arrived.token, verdict(index)));
    for answer in inbox.settle_all(verdicts.collect()).await {
        answer.map_err(|error| Wrong::of("D8", error.to_string()))?;
    }
    let acked: HashSet<&str> =
        held.iter().map(|arrived| arrived.id.as_str()).filter(|id| !failed.contains(*id)).collect();
    let (mut back, until) = (HashSet::new(), Instant::now() + again_wait(rig));
    while back.len() < failed.len()
        && let Some(arrived) = inbox.next_until(until).await
    {
        if acked.contains(arrived.id.as_str()) {
            return Err(Wrong::new("an acknowledged message came again"));
        }
        if failed.contains(&arrived.id) {
            back.insert(arrived.id);
        }
    }
    if inbox.watch(SOON * 5).await.iter().any(|arrived| acked.contains(arrived.id.as_str())) {
        return Err(Wrong::new("an acknowledged message came again"));
    }
    if back.len() < failed.len() {
        return Err(Wrong::of(
            "D5",
            format!("{} of {} failed messages did not come again", failed.len() - back.len(), failed.len()),
        ));
    }
    Ok(Finding::Passed)
}

async fn counts(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let working = work(&mut inbox, 0..1, again_wait(rig), |_, time| time <= 2);
    let ((), came) = tokio::try_join!(deposit(&instance, &topic, Payload::numbered(0..1)), working)?;
    let counts: Vec<Option<u32>> = came.values().flatten().map(|arrived| arrived.count).collect();
    let grow = counts.windows(2).all(|pair| pair[0] < pair[1]);
    // Copies of one delivery have one count, which is for another check to say.
    let copies = counts.windows(2).all(|pair| pair[0] <= pair[1]) && counts.first() != counts.last();
    if counts.first().is_some_and(|first| first.is_some_and(|count| count >= 1)) && (grow || copies) {
        return Ok(Finding::Passed);
    }
    Err(Wrong::new(format!("the counts were {counts:?}")))
}

async fn dead_letters(rig: &Rig) -> Tested {
    let (instance, topic, dead) = (rig.instance("one").await?, rig.topic("t").await?, rig.topic("dead").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let mut grave = subscribe(&instance, &dead, &rig.group("dead"), 10).await?;
    deposit(&instance, &topic, Payload::numbered(0..1)).await?;
    let mut last = None;
    for failures in 0..=FAILURES {
        let Some(arrived) = inbox.next(if failures == 0 { ARRIVE_WAIT } else { again_wait(rig) }).await else {
            let what = Wrong::new(format!("after {failures} failures the message did not come again"));
            return Err(match failures {
                0 => what.or_of("D6"),
                1 => what.or_of("D5"),
                _ => what,
            });
        };
        inbox.watch(COPIES).await;
        if failures < FAILURES {
            inbox.retry(&arrived, SOON).await?;
        }
        last = Some(arrived);
    }
    let Some(last) = last else { return Ok(Finding::Passed) };
    // What the host does: publish, wait for the confirm, acknowledge.
    let letter =
        Payload::of(last.message.data.clone()).with("reason", "no attempt is left").with("original-topic", &topic);
    deposit(&instance, &dead, vec![letter]).await?;
    inbox.ack(&last).await?;
    let letter = grave.next(ARRIVE_WAIT).await.ok_or_else(|| Wrong::of("D6", "the dead letter did not arrive"))?;
    let has = |name: &str, value: &str| letter.message.metadata.iter().any(|pair| pair.0 == name && pair.1 == value);
    if !has("reason", "no attempt is left") || !has("original-topic", &topic) {
        return Err(Wrong::of("B6", "the dead letter lost its reason or its original topic"));
    }
    grave.ack(&letter).await?;
    let back = inbox.watch(SOON * 10).await;
    if back.iter().any(|arrived| arrived.id == last.id && arrived.count > last.count) {
        return Err(Wrong::of("B3", "the message came again after it was acknowledged"));
    }
    Ok(Finding::Passed)
}

async fn leases(rig: &Rig) -> Tested {
    let (instance, topic, group) = (rig.instance("one").await?, rig.topic("t").await?, rig.group("g"));
    let mut inbox = subscribe(&instance, &topic, &group, 10).await?;
    let shared = rig.profile().conformance.address.is_some() && rig.features().groups;
    let other = if shared { Some(rig.instance("two").await?) } else { None };
    deposit(&instance, &topic, Payload::numbered(0..5)).await?;
    let held = hold(&mut inbox, 5).await?;
    // Copies that came at once are for another check to say.
    inbox.watch(COPIES).await;
    let held_for = (rig.lease() * 3).max(Duration::from_secs(2));
    let mut again = match &other {
        None => inbox.watch(held_for).await,
        Some(other) => {
            let mut second = subscribe(other, &topic, &group, 10).await?;
            let (mut first, second) = tokio::join!(inbox.watch(held_for), second.watch(held_for));
            first.extend(second);
            first
        }
    };
    again.retain(|arrived| held.iter().any(|held| held.id == arrived.id));
    if let Some(arrived) = again.first() {
        return Err(Wrong::new(format!("message {} was delivered again while it was in hand", number(arrived)?)));
    }
    for arrived in &held {
        match inbox.settle(arrived.token, Verdict::Ack).await {
            Ok(()) => {}
            Err(error) => return Err(Wrong::new(format!("acknowledged after {} s: {error}", held_for.as_secs()))),
        }
    }
    Ok(Finding::Passed)
}

async fn waits(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    deposit(&instance, &topic, Payload::numbered(0..1)).await?;
    let held = hold(&mut inbox, 1).await?;
    inbox.watch(COPIES).await;
    let asked = Instant::now();
    for arrived in &held {
        inbox.retry(arrived, LATER).await?;
    }
    if rig.features().delay {
        let passing = exchange_early(&instance, &topic, &mut inbox, asked + LATER - EARLY_MAX);
        passing.await?;
    }
    let until = asked + LATER + again_wait(rig);
    let after = loop {
        let arrived = inbox.next_until(until).await.ok_or_else(|| Wrong::of("D5", "the message did not come again"))?;
        inbox.ack(&arrived).await?;
        if number(&arrived)? == 0 {
            break asked.elapsed();
        }
    };
    if after + EARLY_MAX < LATER {
        return Err(Wrong::new(format!(
            "it came again after {} ms instead of {}",
            after.as_millis(),
            LATER.as_millis()
        )));
    }
    Ok(Finding::Passed)
}

/// Others pass while one waits for its retry. That one must not be among them.
async fn exchange_early(instance: &Instance, topic: &str, inbox: &mut Inbox, until: Instant) -> Result<(), Wrong> {
    let acked = exchange(instance, topic, inbox, 1..6).await?;
    for arrived in &acked {
        if number(arrived)? == 0 && Instant::now() < until {
            return Err(Wrong::new("it came again before its wait was over"));
        }
    }
    if Instant::now() >= until {
        return Err(Wrong::new("others did not pass while a message waited for its retry"));
    }
    Ok(())
}

async fn ids(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let results = instance.publish(&topic, Payload::numbered(0..4)).await;
    let confirmed: Vec<usize> = (0..4).filter(|number| results.get(*number).is_some_and(Result::is_ok)).collect();
    if confirmed.len() < 4 {
        return Err(Wrong::of("D9", "not all of a list were confirmed, and some may be there twice"));
    }
    let held = hold(&mut inbox, 4).await?;
    inbox.watch(COPIES).await;
    for arrived in &held {
        inbox.retry(arrived, SOON).await?;
    }
    let again = inbox.take(held.len(), again_wait(rig)).await;
    if again.len() < held.len() {
        return Err(Wrong::of("D5", "not all failed messages came again"));
    }
    for arrived in &again {
        let number = number(arrived)?;
        if arrived.id.is_empty()
            || !held.iter().any(|held| held.id == arrived.id && held.message.data == arrived.message.data)
        {
            return Err(Wrong::new(format!("message {number} had another id, or none, when it came again")));
        }
        inbox.ack(arrived).await?;
    }
    Ok(Finding::Passed)
}

async fn tokens(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let acked = exchange(&instance, &topic, &mut inbox, 0..2).await?;
    for (token, which) in acked
        .iter()
        .map(|arrived| (arrived.token, "that was settled before"))
        .chain([(NO_TOKEN, "that nobody was given")])
    {
        match inbox.settle(token, Verdict::Ack).await {
            Err(SettleError::Stale) => {}
            answer => return Err(Wrong::new(format!("a token {which} was answered with {answer:?}"))),
        }
    }
    Ok(Finding::Passed)
}
