//! Replicas that come and go: what it does to the order of a key, and to messages in flight.

use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::Verdict;

use super::load::Load;
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::Rig;
use crate::scale::{scaled, scaled_time};

/// Keys of each publisher.
const KEYS: u64 = 5;

/// Messages that are confirmed before the second replica joins, and after.
const MESSAGES: u64 = 300;

/// One of so many messages fails once, of every second key.
const FAIL_EVERY: u64 = 10;

/// How long a failed message waits.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// How long replicas come and go.
const STORM: Duration = Duration::from_secs(8);

/// How long one stays.
const STAY: Duration = Duration::from_millis(800);

/// One of so many messages fails, and how often: so at any time some wait to be retried.
const STORM_FAIL_EVERY: u64 = 20;
const STORM_FAILURES: u32 = 2;

/// How long those wait.
const STORM_RETRY_WAIT: Duration = Duration::from_millis(700);

/// The check that is about what is left unsettled while nothing breaks.
const KEEPS_UNSETTLED: &str = "B9";

/// Deliveries of any other message.
const DELIVERIES_MAX: u32 = 3;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "S10",
        title: "keeps the order of a key while replicas join",
        expects: "messages of many keys flow, some fail once, and a second replica joins: the messages of a key come in the \
                  order they were published, until one of that key is retried",
        cause: "messages of one key in the hands of two replicas at the same time, or publishes sent again out of order",
        read: "wit/README.md, \"Subscribing, credit, and order\"",
        needs: &[Need::Shared, Need::Groups, Need::Ordering, Need::Queue],
        bound: Some(Duration::from_secs(120)),
        run: |rig| Box::pin(order(rig)),
    },
    Check {
        id: "S11",
        title: "lives through replicas that come and go",
        expects: "replicas join and leave, half of them killed, while messages flow and some are retried: nothing is lost, and \
                  no message is delivered more than three times but those that ask for it",
        cause: "a group that starts over at each change, or redelivery of what somebody has in hand",
        read: "wit/README.md, \"Settling\"",
        needs: &[Need::Shared, Need::Groups, Need::Queue],
        bound: Some(Duration::from_secs(180)),
        run: |rig| Box::pin(storm(rig)),
    },
];

async fn order(rig: &Rig) -> Tested {
    let fails = |key: &str| key.ends_with(['0', '2', '4', '6', '8']);
    let load = Load::new(rig).await?.keyed(KEYS).answering(move |seen| {
        let failing = fails(&seen.key) && seen.n.is_multiple_of(FAIL_EVERY) && seen.count == 1;
        if failing { Verdict::Retry(RETRY_WAIT) } else { Verdict::Ack }
    });
    let (one, two) = (rig.instance("one").await?, rig.instance("two").await?);
    let inbox = load.subscribe(&one).await?;
    let joining = async {
        load.flows(scaled(MESSAGES)).await?;
        let inbox = load.subscribe(&two).await?;
        load.consume(&two, inbox).await;
        Ok::<(), Wrong>(())
    };
    let running = load.run(&one, vec![(&one, inbox)], async {
        load.flows(scaled(MESSAGES)).await?;
        load.flows(scaled(MESSAGES)).await
    });
    let (account, joined_well) = tokio::join!(running, joining);
    let account = account?;
    joined_well?;
    one.kill().await;
    two.kill().await;
    let disorder = load.ledger.disorder();
    if let Some(first) = disorder.first() {
        let what = format!("{} messages came out of order, the first: {first}; {account}", disorder.len());
        return Err(Wrong::of("D7", what));
    }
    account.judge()?;
    Ok(Finding::Passed)
}

async fn storm(rig: &Rig) -> Tested {
    let fails = |n: u64| n.is_multiple_of(STORM_FAIL_EVERY);
    let load = Load::new(rig).await?.answering(move |seen| {
        let retried = fails(seen.n) && seen.count <= STORM_FAILURES;
        if retried { Verdict::Retry(STORM_RETRY_WAIT) } else { Verdict::Ack }
    });
    let stays = rig.instance("stays").await?;
    let inbox = load.subscribe(&stays).await?;
    let account = load
        .run(&stays, vec![(&stays, inbox)], async {
            let until = Instant::now() + scaled_time(STORM);
            let mut n = 0;
            let mut blown = Ok(());
            while Instant::now() < until && blown.is_ok() && load.goes_on() {
                blown = come_and_go(&load, n).await;
                n += 1;
            }
            blown
        })
        .await?;
    stays.kill().await;
    account.judge().map_err(|wrong| wrong.or_of(KEEPS_UNSETTLED))?;
    let most = load.ledger.deliveries_max(|n| !fails(n));
    if most > DELIVERIES_MAX {
        let what =
            format!("a message that never failed was delivered {most} times (at most {DELIVERIES_MAX}); {account}");
        return Err(Wrong::of("C2", what));
    }
    Ok(account.too_weak(1, 1).map_or(Finding::Passed, Finding::Failed))
}

/// One replica joins, works for a while, and leaves in good order or not.
async fn come_and_go(load: &Load<'_>, n: u64) -> Result<(), Wrong> {
    let instance = load.rig.instance(&format!("guest{n}")).await?;
    let inbox = load.subscribe(&instance).await?;
    load.consume_until(&instance, inbox, Some(Instant::now() + STAY)).await;
    if n.is_multiple_of(2) {
        load.ledger.fault("a replica leaves");
        instance.close().await;
    } else {
        load.ledger.fault("a replica is killed");
        instance.kill().await;
    }
    Ok(())
}
