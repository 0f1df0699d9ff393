//! The apps' side of it: slow ones while hosts are restarted in turn, ones that are away, and dead-letter topics that
//! refuse. Nothing is lost, and nothing is dead-lettered that the app did not ask for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rig::{RUN_MAX, Rig, Side, dead_letters_of};
use crate::harness::host::HostPlan;
use crate::harness::ledger::Report;
use crate::harness::{Test, resource, run_within, until};

/// How often a host is restarted, in turn.
const RESTARTS: u64 = 10;

/// How long a slow app takes for each event.
const SLOW: Duration = Duration::from_millis(150);

/// How often the app goes away.
const OUTAGES: u64 = 10;

/// How often the dead-letter topic refuses.
const REFUSALS: u64 = 10;

/// Tries until the app is there again, however long that takes.
const FOR_EVER: &str = "{retries: {again: {policy: constant, duration: 50ms, maxRetries: -1}}}";

pub(super) fn nobody_dead_by_mistake(report: &Report) -> Result<()> {
    for account in &report.accounts {
        ensure!(account.dead_by_mistake.is_empty(), "dead-lettered: {:?}", account.dead_by_mistake);
    }
    Ok(())
}

/// A rolling restart, as an orchestrator does one: each host is asked to stop, ends in good order, and comes back.
#[test]
fn hosts_of_slow_apps_are_restarted_in_turn() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, mut waiting) = Rig::new(test, RESTARTS, &["shop"]).await?;
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let one = waiting.pop().context("one app")?;
        one.slow(SLOW);
        let mut sides = vec![
            Rig::side(test, one.clone(), &broker).await?,
            // The same app id, the same log: they compete.
            Rig::side(test, one, &broker).await?,
        ];
        rig.publish(sides.first().context("two hosts")?.host.address());
        let mut random = test.random();
        for restart in 0..RESTARTS {
            rig.in_the_middle(random.u64(50..rig.share() * 3 / 4)).await?;
            rig.ledger.fault(format!("restart {restart}"));
            let side = sides.get_mut(usize::try_from(restart % 2)?).context("two hosts")?;
            restarted(side).await?;
        }
        nobody_dead_by_mistake(&rig.finish(&sides).await?)
    })
}

async fn restarted(side: &mut Side) -> Result<()> {
    let ended = side.host.stop().await?;
    ensure!(ended.code == Some(0), "the host ended with {:?} when asked to stop:\n{}", ended.code, ended.log);
    side.host.start_again(|plan| plan).await
}

/// One app and its host.
async fn one(test: &Test, faults: u64, change: impl FnOnce(HostPlan) -> Result<HostPlan>) -> Result<(Rig, Side)> {
    let (rig, mut waiting) = Rig::new(test, faults, &["shop"]).await?;
    let broker = resource::redis("bus", rig.redis.address(), &[]);
    let side = Rig::side_with(test, waiting.pop().context("one app")?, &broker, change).await?;
    Ok((rig, side))
}

#[test]
fn an_app_goes_away_and_comes_back() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let patient = resource::inbound("bus", FOR_EVER, "{retry: again}");
        let (mut rig, mut side) = one(test, OUTAGES, |plan| plan.resource_instead(1, &patient)).await?;
        rig.publish(side.host.address());
        let mut random = test.random();
        for outage in 0..OUTAGES {
            rig.in_the_middle(random.u64(50..rig.share() * 3 / 4)).await?;
            rig.ledger.fault(format!("outage {outage}"));
            let app = side.app.as_mut().context("an app")?;
            app.crash().await;
            // The host has noticed: it has tried again what it could not deliver.
            let tried = failures(&side)?;
            until("the host to try in vain", async || (failures(&side).ok()? > tried).then_some(())).await?;
            side.app.as_mut().context("an app")?.start_again().await?;
        }
        nobody_dead_by_mistake(&rig.finish(&[side]).await?)
    })
}

/// How often the host has said that a delivery failed.
fn failures(side: &Side) -> Result<usize> {
    Ok(side.host.log()?.matches("an attempt failed and is made again").count())
}

/// The user that the host logs in as may write to everything, or to all but the dead-letter topics.
#[test]
fn a_dead_letter_topic_refuses_for_a_while() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, side) = one(test, REFUSALS, Ok).await?;
        rig.publish(side.host.address());
        let dead = dead_letters_of("shop");
        let mut random = test.random();
        for refusal in 0..REFUSALS {
            rig.in_the_middle(random.u64(50..rig.share() / 2)).await?;
            rig.redis.read_only(&dead).await?;
            rig.ledger.fault(format!("refusal {refusal}"));
            let refused = refusals(&side)?;
            until("a dead letter to be refused", async || (refusals(&side).ok()? > refused).then_some(())).await?;
            rig.redis.all_allowed().await?;
        }
        nobody_dead_by_mistake(&rig.finish(&[side]).await?)
    })
}

/// How often the host has said that a dead letter was refused.
fn refusals(side: &Side) -> Result<usize> {
    Ok(side.host.log()?.matches("cannot be dead-lettered").count())
}
