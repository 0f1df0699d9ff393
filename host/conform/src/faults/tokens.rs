//! Deliveries in hand when the connection is lost, and when the whole instance is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::{Arrived, Verdict};

use super::behind::behind;
use super::load::{Load, RECOVER_WAIT};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::ledger::Seen;
use crate::proxy::Cut;
use crate::rig::{Inbox, Instance, Proxies, Rig};
use crate::scale::scaled;
use crate::wait::until_within;

/// The check that is about what is left unsettled while nothing breaks: whoever fails that one fails here, too.
const KEEPS_UNSETTLED: &str = "B9";

/// The check that is about copies.
const DELIVERS_ONCE: &str = "C2";

/// Deliveries in hand.
const HELD: usize = 50;

/// What redelivery may take besides the lease: connecting again included.
const REDELIVERY_WAIT: Duration = Duration::from_secs(20);

/// Instances that live on when one is killed.
const SURVIVORS: usize = 3;

/// Messages that the killed instance holds.
const KILLED_WITH: usize = 100;

/// How long past the lease the survivors may take.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(5);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "S5",
        title: "voids the tokens of a lost connection",
        expects: "deliveries are in hand when the connection is cut: afterwards settling them answers `stale`, acknowledges \
                  nothing, and every one of them is delivered again. Where what binds a delivery to its consumer outlasts a \
                  connection (a membership in a group), settling may succeed: then it is not delivered again",
        cause: "a token that is not bound to its connection, or messages in hand that are forgotten or acknowledged when \
                the connection is made anew",
        read: "wit/README.md, \"Subscribing, credit, and order\"",
        needs: &[Need::Proxy, Need::Queue],
        bound: Some(Duration::from_secs(180)),
        run: |rig| Box::pin(stale_tokens(rig)),
    },
    Check {
        id: "S6",
        title: "leaves what a killed instance held to the others",
        expects: "an instance is killed with messages in hand while three others of its group live: they get all of them \
                  within the lease and 5 s",
        cause: "a message acknowledged before the host said so, a lease that never runs out (the profile's `lease` must \
                be what the broker and the settings make of it), or nobody who claims what was left behind",
        read: "wit/README.md, \"Settling\"",
        needs: &[Need::Shared, Need::Groups, Need::Queue],
        bound: Some(Duration::from_secs(120)),
        run: |rig| Box::pin(killed(rig)),
    },
];

async fn stale_tokens(rig: &Rig) -> Tested {
    let proxies = rig.proxies().await?;
    for _ in 0..scaled(1) {
        stale_round(rig, &proxies).await?;
    }
    Ok(Finding::Passed)
}

async fn stale_round(rig: &Rig, proxies: &Proxies) -> Result<(), Wrong> {
    let load = Load::new(rig).await?;
    let instance = behind(rig, proxies).await?;
    let mut inbox = load.subscribe(&instance).await?;
    load.fill(&instance, HELD as u64).await?;
    let old = hold(&load, &mut inbox, HELD).await?;
    cut(&load, &instance, proxies).await?;
    let taken = settle_old(&load, &mut inbox, &old).await;
    if inbox.is_gone() {
        inbox = load.subscribe(&instance).await?;
    }
    let mut due = old;
    due.retain(|n, _| !taken.messages.contains(n));
    // Half of what comes again is acknowledged: the rest must still be there for somebody else.
    let again = come_again(&load, &instance, inbox, &due, &taken).await?;
    instance.kill().await;
    let other = rig.instance("two").await?;
    let inbox = load.subscribe(&other).await?;
    come_again(&load, &other, inbox, &again, &taken).await.map_err(|wrong| {
        wrong.and(&"(these were delivered again after the cut and left unsettled: a stale settlement must not acknowledge them)")
    })?;
    other.kill().await;
    Ok(())
}

/// Takes so many different messages and settles none. By their numbers.
async fn hold(load: &Load<'_>, inbox: &mut Inbox, count: usize) -> Result<BTreeMap<u64, Arrived>, Wrong> {
    let until = Instant::now() + REDELIVERY_WAIT;
    let mut held = BTreeMap::new();
    while held.len() < count {
        let Some(arrived) = inbox.next_until(until).await else {
            let what =
                format!("only {} of {count} messages arrived within {} s", held.len(), REDELIVERY_WAIT.as_secs());
            return Err(Wrong::of("D6", what));
        };
        if let Some(seen) = load.ledger.arrived(&arrived.message.data) {
            held.entry(seen.n).or_insert(arrived);
        }
    }
    Ok(held)
}

/// Cuts every connection, and returns when the adapter has made a new one and publishes over it.
async fn cut(load: &Load<'_>, instance: &Instance, proxies: &Proxies) -> Result<(), Wrong> {
    let before = proxies.counts().accepted;
    load.ledger.fault("all connections reset");
    proxies.cut_all(Cut::Reset);
    let connected = until_within(RECOVER_WAIT, "", async || (proxies.counts().accepted > before).then_some(())).await;
    if connected.is_err() {
        let what = format!("no new connection {} s after all were cut", RECOVER_WAIT.as_secs());
        return Err(Wrong::of("S3", what));
    }
    load.fill_elsewhere(instance).await
}

/// The messages whose old tokens were settled with success, and the check that explains it if they come again.
struct Taken {
    messages: BTreeSet<u64>,
    about: &'static str,
}

impl Taken {
    fn came_again(&self, n: u64, run: &str) -> Wrong {
        let what = format!(
            "message {n} of run {run} was delivered again, although its token of the connection that was cut was settled with \
             success (`stale` was due)"
        );
        Wrong::of(self.about, what)
    }
}

/// Acknowledges by the old tokens.
async fn settle_old(load: &Load<'_>, inbox: &mut Inbox, old: &BTreeMap<u64, Arrived>) -> Taken {
    // A copy has a token that the adapter made up.
    let about = if load.ledger.deliveries_max(|_| true) > 1 { DELIVERS_ONCE } else { KEEPS_UNSETTLED };
    let verdicts = old.values().map(|arrived| (arrived.token, Verdict::Ack)).collect();
    let answers = inbox.settle_all(verdicts).await;
    let taken = old.keys().zip(&answers).filter(|(_, answer)| answer.is_ok());
    Taken { messages: taken.map(|(n, _)| *n).collect(), about }
}

/// All of these are delivered again, and none of those that were taken; every second one is acknowledged. Those that are
/// not.
async fn come_again(
    load: &Load<'_>,
    instance: &Instance,
    mut inbox: Inbox,
    due: &BTreeMap<u64, Arrived>,
    taken: &Taken,
) -> Result<BTreeMap<u64, Arrived>, Wrong> {
    let bound = REDELIVERY_WAIT + load.rig.lease() * 2;
    let until = Instant::now() + bound;
    let mut missing: BTreeSet<u64> = due.keys().copied().collect();
    let mut kept = BTreeMap::new();
    // What was taken and is still at the broker shows by then.
    let watched = Instant::now() + if taken.messages.is_empty() { Duration::ZERO } else { load.rig.lease() * 2 };
    while !missing.is_empty() || Instant::now() < watched {
        let wait = if missing.is_empty() { watched } else { until };
        let Some(arrived) = inbox.next_until(wait).await else {
            if inbox.is_gone() && Instant::now() < wait {
                inbox = load.subscribe(instance).await?;
                continue;
            }
            if missing.is_empty() {
                break;
            }
            let (count, all, run) = (missing.len(), due.len(), load.ledger.run());
            let what = format!(
                "{count} of {all} messages that were in hand did not come again within {} s; run {run}, messages {missing:?}",
                bound.as_secs()
            );
            return Err(Wrong::of(KEEPS_UNSETTLED, what));
        };
        let Some(Seen { n, .. }) = load.ledger.arrived(&arrived.message.data) else { continue };
        if taken.messages.contains(&n) {
            return Err(taken.came_again(n, load.ledger.run()));
        }
        missing.remove(&n);
        if n.is_multiple_of(2) {
            inbox.ack(&arrived).await?;
        } else {
            kept.insert(n, arrived);
        }
    }
    // What is acknowledged here belongs to the past of the next instance.
    kept.retain(|n, _| due.contains_key(n));
    Ok(kept)
}

async fn killed(rig: &Rig) -> Tested {
    let load = Load::new(rig).await?;
    let victim = rig.instance("victim").await?;
    let mut inbox = load.subscribe_with(&victim, KILLED_WITH as u32).await?;
    load.fill(&victim, KILLED_WITH as u64).await?;
    let held = hold(&load, &mut inbox, KILLED_WITH).await?;
    let mut survivors = Vec::new();
    for n in 0..SURVIVORS {
        let instance = rig.instance(&format!("survivor{n}")).await?;
        let inbox = load.subscribe(&instance).await?;
        survivors.push((instance, inbox));
    }
    load.ledger.fault(format!("kill with {} in hand", held.len()));
    victim.kill().await;
    let since = Instant::now();
    drop(inbox);
    let bound = rig.lease() + TAKE_OVER_WAIT;
    let taking = async {
        let all = until_within(bound, "", async || load.ledger.quiet().then_some(())).await;
        load.end().await;
        all
    };
    let consuming = futures::future::join_all(survivors.drain(..).map(async |(instance, inbox)| {
        load.consume(&instance, inbox).await;
        instance.kill().await;
    }));
    let (taken, _) = tokio::join!(taking, consuming);
    if taken.is_err() {
        let (open, took) = (load.ledger.in_flight(), since.elapsed());
        let what = format!(
            "not all of the {KILLED_WITH} messages that the killed instance held were acknowledged by the others within {} s \
             (after {} s {open} are missing)",
            bound.as_secs(),
            took.as_secs()
        );
        return Err(Wrong::of(KEEPS_UNSETTLED, what).and(&load.account().await?));
    }
    Ok(Finding::Passed)
}
