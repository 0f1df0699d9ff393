//! Plugins die: an adapter traps in the middle of publishing and of settling, a handler on some events the first time and
//! on some every time.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::onward::{DONE, WORKER, follow, handled};
use super::rig::{RUN_MAX, Rig, TOPIC, dead_letters_of};
use crate::harness::host::HostPlan;
use crate::harness::redis::Redis;
use crate::harness::{plugin, resource, run_within, until};

/// How often the adapter dies, at least. Far fewer than the restarts it is allowed in the time of a run.
const TRAPS: u64 = 12;

/// What the host says when an adapter is lost.
const LOST: &str = "the adapter was lost, a fresh instance follows";

#[test]
fn an_adapter_traps_again_and_again() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, waiting) = Rig::new(test, TRAPS, &["shop"]).await?;
        // In every share of the messages at least once.
        let every = (rig.share() * 9 / 10).to_string();
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let mut sides = vec![];
        for one in waiting {
            let trap = |plan: HostPlan| Ok(plan.env("WHIMBREL_TRAP_ADAPTERS_EVERY", &every));
            sides.push(Rig::side_with(test, one, &broker, trap).await?);
        }
        let Some(side) = sides.first() else { return Ok(()) };
        rig.publish(side.host.address());
        let mut seen = 0;
        for trap in 0..TRAPS {
            rig.open_share();
            seen = until("the adapter to trap", async || {
                Some(side.host.log().ok()?.matches(LOST).count()).filter(|traps| *traps > seen)
            })
            .await?;
            rig.ledger.fault(format!("the adapter trapped, number {trap}"));
        }
        rig.finish(&sides).await?;
        Ok(())
    })
}

/// How often the ledger looks at what is in flight while traps happen all the time.
const LOOKS: u64 = 12;

/// What the handler does with message `n` at each attempt.
fn deed(n: u64) -> &'static str {
    match n % 100 {
        0 => r#""trap""#,
        20 | 40 | 60 | 80 => r#"["trap","publish"]"#,
        50 => r#""drop""#,
        _ => r#""publish""#,
    }
}

fn traps_once(n: u64) -> bool {
    deed(n).starts_with('[')
}

fn orders(n: u64) -> String {
    format!(r#","do":{},"pubsub":"bus","topic":"{DONE}""#, deed(n))
}

#[test]
fn a_handler_traps_again_and_again() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, waiting) = Rig::with(test, LOOKS, &[WORKER], orders).await?;
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let mut sides = vec![];
        for one in waiting {
            let dead = dead_letters_of(WORKER);
            let subscriptions = [("bus", TOPIC, Some(dead.as_str()))];
            let file = plugin::misbehaving_handler();
            let handler = resource::handler(WORKER, file, &subscriptions, "{instances: 4}");
            sides.push(Rig::side_without_app(one, Rig::plan(test, "publisher", &broker)?.resource(handler)?).await?);
        }
        let Some(side) = sides.first() else { return Ok(()) };
        let following = follow(rig.redis.reader(DONE).await?, rig.seed, Arc::clone(&side.subscriber));
        rig.publish(side.host.address());
        for look in 0..LOOKS {
            rig.in_the_middle(rig.share() / 2).await?;
            rig.ledger.fault(format!("traps, look {look}"));
        }
        rig.finish(&sides).await?;
        following.abort();
        trapping_messages_took_a_second_attempt(&rig.redis, rig.seed).await
    })
}

async fn trapping_messages_took_a_second_attempt(redis: &Redis, seed: u64) -> Result<()> {
    let mut trapped = 0;
    for entry in redis.entries(DONE).await? {
        if let Some((n, attempt)) = handled(&entry.data, seed)
            && traps_once(n)
        {
            ensure!(attempt >= 2, "message {n} was handled at attempt {attempt}, though the first one traps");
            trapped += 1;
        }
    }
    ensure!(trapped > 0, "nothing trapped");
    Ok(())
}
