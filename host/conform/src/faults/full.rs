//! The broker is full: it delivers what it has, and takes nothing more.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::load::{IN_FLIGHT_MIN, Load};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::Rig;
use crate::wait::until_within;

/// Messages that are confirmed before it, and again after.
const MESSAGES: u64 = 100;

/// Without a confirm for so long, the broker is full: longer than one publish may take.
const STILL: Duration = Duration::from_secs(4);

/// How long it may take until it is.
const FULL_WAIT: Duration = Duration::from_secs(20);

/// How long what it has may take to be delivered and acknowledged meanwhile, besides the broker's lease.
const EMPTY_WAIT: Duration = Duration::from_secs(15);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S16",
    title: "waits for a full broker, and loses nothing",
    expects: "the broker takes no more messages while they flow: publishes are answered `throttled`, `transient` or `unknown`, \
              never with success and never for good; what it has is delivered and acknowledged meanwhile; once there is room \
              all goes on, and nothing confirmed is lost",
    cause: "\"no room\" answered as `permanent` or `invalid`, a publish that waits in the way of acknowledgements, or a \
            connection that the broker holds back and that is taken for dead",
    read: "wit/README.md, \"What the failures mean\"",
    needs: &[Need::Shared, Need::Fill],
    bound: Some(Duration::from_secs(180)),
    run: |rig| Box::pin(full(rig)),
}];

async fn full(rig: &Rig) -> Tested {
    let load = Load::new(rig).await?;
    let instance = rig.instance("one").await?;
    let inbox = load.subscribe(&instance).await?;
    let account = load
        .run(&instance, vec![(&instance, inbox)], async {
            load.flows(MESSAGES).await?;
            load.strikes("full").await;
            fill_and_relieve(&load).await?;
            load.recovers(&instance).await?;
            load.flows(MESSAGES).await
        })
        .await?;
    instance.kill().await;
    if let Some(refusal) = load.ledger.refusal() {
        let what = format!("a message was refused for good because the broker was full: {refusal}");
        return Err(Wrong::new(what).and(&account));
    }
    account.judge()?;
    Ok(account.too_weak(1, IN_FLIGHT_MIN).map_or(Finding::Passed, Finding::Failed))
}

/// It is relieved whatever happened: the next check needs it.
async fn fill_and_relieve(load: &Load<'_>) -> Result<(), Wrong> {
    let control = load.rig.control();
    let filled = match control.fill(&load.topic).await {
        Ok(()) => stands_full(load).await,
        Err(error) => Err(error.into()),
    };
    let relieved = control.relieve(&load.topic).await;
    filled?;
    Ok(relieved?)
}

async fn stands_full(load: &Load<'_>) -> Result<(), Wrong> {
    let give_up = Instant::now() + FULL_WAIT;
    let (mut confirmed, mut since) = (load.ledger.confirmed_count(), Instant::now());
    while since.elapsed() < STILL {
        if Instant::now() > give_up {
            let what = "publishes are still confirmed after `fill` has ended: `fill` fills nothing, or whoever confirms them is \
                        not the broker";
            return Err(Wrong::of("S4", what));
        }
        sleep_until(Instant::now() + STILL / 20).await;
        let now = load.ledger.confirmed_count();
        if now != confirmed {
            (confirmed, since) = (now, Instant::now());
        }
    }
    let bound = EMPTY_WAIT + load.rig.lease();
    let emptied = until_within(bound, "", async || load.ledger.quiet().then_some(()));
    emptied.await.map_err(|_| {
        Wrong::new(format!("what a full broker has was not delivered and acknowledged within {} s", bound.as_secs()))
    })
}
