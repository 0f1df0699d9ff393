//! Redis dies (kill -9) and comes back with what it had confirmed. Two apps with an identity each get everything.

use anyhow::Result;

use super::rig::{RUN_MAX, Rig};
use crate::harness::{resource, run_within};

/// How often it dies.
const KILLS: u64 = 12;

#[test]
fn redis_dies_and_comes_back() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, waiting) = Rig::new(test, KILLS, &["shop", "audit"]).await?;
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let mut sides = vec![];
        for one in waiting {
            sides.push(Rig::side(test, one, &broker).await?);
        }
        let Some(first) = sides.first() else { return Ok(()) };
        rig.publish(first.host.address());
        let mut random = test.random();
        for kill in 0..KILLS {
            rig.in_the_middle(random.u64(50..rig.share() * 3 / 4)).await?;
            rig.ledger.fault(format!("kill -9 of Redis, number {kill}"));
            rig.redis.kill().await?;
            rig.redis.start_again().await?;
        }
        rig.finish(&sides).await?;
        Ok(())
    })
}
