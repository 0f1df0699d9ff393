//! An app that takes its events in batches and answers them in every way there is: some entries are dropped or asked for
//! again, some answers are garbage, lack entries, come too late or not at all. Meanwhile the app goes away and comes back,
//! and the host is stopped or killed. Nothing is lost, and nothing is dead-lettered that the app did not ask for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::apps::nobody_dead_by_mistake;
use super::rig::{RUN_MAX, Rig, Side, TOPIC, dead_letters_of};
use crate::harness::{resource, run_within, until};

/// How often something breaks: the app, the host in good order, the host.
const FAULTS: u64 = 12;

/// The most events of one batch.
const BATCH_MAX: u64 = 40;

/// Tries until the app says what is to be done, however long that takes. The timeout is for the answers that never come.
const PATIENT: &str = "{retries: {again: {policy: constant, duration: 50ms, maxRetries: -1}}, timeouts: {silence: 2s}}";

/// How long the app takes for each batch.
const SLOW: Duration = Duration::from_millis(20);

#[test]
fn batches_are_answered_in_every_way() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, mut waiting) = Rig::new(test, FAULTS, &["shop"]).await?;
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let one = waiting.pop().context("one app")?;
        one.slow(SLOW);
        let policies = resource::inbound("bus", PATIENT, "{retry: again, timeout: silence}");
        let asked = batches();
        let change =
            |plan: crate::harness::host::HostPlan| plan.resource_instead(1, &policies)?.resource_instead(2, &asked);
        let mut side = Rig::side_with(test, one, &broker, change).await?;
        side.app.as_ref().context("an app")?.count_batches("/batches", &side.subscriber);
        rig.publish(side.host.address());
        let mut random = test.random();
        for fault in 0..FAULTS {
            rig.in_the_middle(random.u64(50..rig.share() * 3 / 4)).await?;
            strike(&mut rig, &mut side, fault).await?;
        }
        let report = rig.finish(std::slice::from_ref(&side)).await?;
        let largest = side.subscriber.largest_batch();
        ensure!((2..=BATCH_MAX).contains(&largest), "the largest batch had {largest} events");
        nobody_dead_by_mistake(&report)
    })
}

fn batches() -> String {
    let one_by_one = resource::subscription("bus", TOPIC, "/batches", Some(&dead_letters_of("shop")));
    format!(
        "{one_by_one}  metadata: {{maxUnsettled: \"400\"}}\n  bulkSubscribe: {{enabled: true, maxMessagesCount: \
         {BATCH_MAX}, maxAwaitDurationMs: 50}}\n"
    )
}

async fn strike(rig: &mut Rig, side: &mut Side, fault: u64) -> Result<()> {
    match fault % 3 {
        0 => {
            rig.ledger.fault(format!("outage of the app, number {fault}"));
            let app = side.app.as_mut().context("an app")?;
            app.crash().await;
            let tried = unreached(side)?;
            until("the host to try in vain", async || (unreached(side).ok()? > tried).then_some(())).await?;
            side.app.as_mut().context("an app")?.start_again().await
        }
        1 => {
            rig.ledger.fault(format!("the host is stopped, number {fault}"));
            let ended = side.host.stop().await?;
            ensure!(ended.code == Some(0), "the host ended with {:?} when asked to stop:\n{}", ended.code, ended.log);
            side.host.start_again(|plan| plan).await
        }
        _ => {
            rig.ledger.fault(format!("kill -9 of the host, number {fault}"));
            side.host.kill().await?;
            side.host.start_again(|plan| plan).await
        }
    }
}

/// How often the host has said that an event did not get to the app.
fn unreached(side: &Side) -> Result<usize> {
    let log = side.host.log()?;
    let failed = log.lines().filter(|line| line.contains("an attempt failed and is made again"));
    Ok(failed.filter(|line| line.contains("cannot connect to the app")).count())
}
