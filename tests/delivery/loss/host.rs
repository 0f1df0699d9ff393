//! The host dies: at every named step of publish and settle, and at random.

use anyhow::Result;

use super::rig::{RUN_MAX, Rig, Side};
use crate::harness::host::HostPlan;
use crate::harness::{resource, run_within};

/// The variable that makes the host abort at a step: its name, and at which of its passes.
const CRASH_AT: &str = "WHIMBREL_CRASH_AT";

/// Every step a host can die at. The number divides a share of the messages: only some pass the steps of dead-lettering.
const STEPS: [(&str, u64); 9] = [
    ("publish.wrapped", 1),
    ("publish.queued", 1),
    ("publish.confirmed", 1),
    ("deliver.arrived", 1),
    ("deliver.handled", 1),
    ("settle.before-dead-letter", 20),
    ("settle.dead-lettered", 20),
    ("settle.before-ack", 1),
    ("settle.acked", 1),
];

/// How often it is killed from outside, at a random moment.
const KILLS: u64 = 6;

#[test]
fn the_host_dies_at_every_step_and_at_random() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, waiting) = Rig::new(test, STEPS.len() as u64 + KILLS, &["shop"]).await?;
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let mut sides = vec![];
        for one in waiting {
            sides.push(Rig::side(test, one, &broker).await?);
        }
        let Some(side) = sides.first_mut() else { return Ok(()) };
        rig.publish(side.host.address());
        let mut random = test.random();
        for (step, rarity) in STEPS {
            let pass = random.u64(1..=rig.share() / rarity / 2);
            restart(side, |plan| plan.env(CRASH_AT, &format!("{step}:{pass}"))).await?;
            rig.open_share();
            side.host.ended().await.map_err(|late| late.context(format!("{step}:{pass} was not reached")))?;
            rig.ledger.fault(format!("died at {step}, pass {pass}"));
            side.host.start_again(|plan| plan.without_env(CRASH_AT)).await?;
        }
        for kill in 0..KILLS {
            rig.in_the_middle(random.u64(50..rig.share() * 3 / 4)).await?;
            rig.ledger.fault(format!("kill -9, number {kill}"));
            side.host.kill().await?;
            side.host.start_again(|plan| plan).await?;
        }
        rig.finish(&sides).await?;
        Ok(())
    })
}

/// Stops it in good order, and starts it as changed.
async fn restart(side: &mut Side, change: impl FnOnce(HostPlan) -> HostPlan) -> Result<()> {
    let ended = side.host.stop().await?;
    anyhow::ensure!(ended.code == Some(0), "the host ended with {:?} when asked to stop:\n{}", ended.code, ended.log);
    side.host.start_again(change).await
}
