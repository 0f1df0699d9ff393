//! The redis adapter is replaced again and again while messages flow: nothing is lost, no publish fails, nothing comes
//! twice. And the host is killed in the midst of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::files::{Folder, NOT_TAKEN, TAKEN, TRIED, edition, said, says};
use crate::delivery::loss::rig::{RUN_MAX, Rig, Side};
use crate::harness::redis::Redis;
use crate::harness::{Test, http, plugin, resource, run, run_within, until};

/// The type that is replaced.
const KIND: &str = "pubsub.redis";

/// How often it is.
const SWAPS: u64 = 12;

#[test]
fn an_adapter_is_replaced_again_and_again() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, side, folder) = rig(test, SWAPS).await?;
        rig.publish(side.host.address());
        let mut refused = 0;
        for swap in 0..SWAPS {
            let (tried, taken) = (said(&side.host, TRIED), said(&side.host, TAKEN));
            let file = edition(plugin::redis(), swap)?;
            if swap % 2 == 0 {
                folder.drop_in(KIND, &file)?
            } else {
                folder.write_over(KIND, &file)?
            }
            says(&side.host, TRIED, tried + 1).await?;
            rig.open_share();
            says(&side.host, TAKEN, taken + 1).await?;
            rig.ledger.fault(format!("swap {swap}"));
            stands(side.host.http()?).await?;
            if let Some(broken) = broken(swap)? {
                folder.drop_in(KIND, &broken)?;
                refused += 1;
                says(&side.host, NOT_TAKEN, refused).await?;
            }
        }
        let sides = [side];
        let report = rig.finish(&sides).await?;
        ensure!(report.unknown == 0, "{} publishes failed", report.unknown);
        let twice: u64 = report.accounts.iter().map(|account| account.duplicates).sum();
        ensure!(twice == 0, "{twice} messages came twice");
        let [side] = sides;
        says(&side.host, "has finished what it had in hand", said(&side.host, TAKEN)).await?;
        ensure!(said(&side.host, "was lost") == 0, "an adapter was lost");
        Ok(())
    })
}

/// A run with so many faults, and a host that has compiled all editions that will be dropped in: what is under test is the
/// swap, and while a compiler runs the messages of a share are long through.
async fn rig(test: &Test, faults: u64) -> Result<(Rig, Side, Folder)> {
    let (rig, mut waiting) = Rig::new(test, faults, &["shop"]).await?;
    let folder = Folder::new(test)?;
    let broker = resource::redis("bus", rig.redis.address(), &[]);
    let one = waiting.pop().context("one app")?;
    let side = Rig::side_with(test, one, &broker, |plan| Ok(folder.of(plan))).await?;
    for number in 0..faults {
        folder.drop_in(KIND, &edition(plugin::redis(), number)?)?;
        says(&side.host, TAKEN, usize::try_from(number)? + 1).await?;
    }
    Ok((rig, side, folder))
}

/// What is dropped in between, and must not be taken.
fn broken(swap: u64) -> Result<Option<Vec<u8>>> {
    Ok(match swap % 6 {
        0 => Some(b"no component".to_vec()),
        1 => Some(std::fs::read(plugin::redis())?.split_off(100)),
        2 => {
            let mut cut = std::fs::read(plugin::redis())?;
            cut.truncate(cut.len() / 2);
            Some(cut)
        }
        3 => Some(std::fs::read(plugin::misbehaving_handler())?),
        4 => Some(std::fs::read(plugin::in_memory())?),
        _ => None,
    })
}

/// While adapters come and go the API shows what it always did.
async fn stands(host: std::net::SocketAddr) -> Result<()> {
    let health = http::get(host, "/v1.0/healthz").await?;
    ensure!(health.status == 204, "healthz answers {}", health.status);
    let metadata = http::get(host, "/v1.0/metadata").await?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.body)?;
    let Some(component) = metadata["components"].get(0) else { anyhow::bail!("no component: {metadata}") };
    ensure!(component["name"] == "bus" && component["type"] == KIND, "{component}");
    ensure!(metadata["subscriptions"].as_array().is_some_and(|all| all.len() == 1), "{metadata}");
    Ok(())
}

/// The steps of a swap that the host dies at, and how often.
const STEPS: [&str; 3] = ["swap.ready", "swap.switched", "swap.drained"];

/// How often it dies at each.
const ROUNDS: u64 = 3;

/// How often it is killed from outside, at some moment after a file was dropped in.
const KILLS: u64 = 4;

/// The latest such moment: about when the swap is over.
const KILL_WITHIN_MILLIS: u64 = 300;

#[test]
fn the_host_dies_in_the_midst_of_a_swap() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let deaths = STEPS.len() as u64 * ROUNDS + KILLS;
        let (mut rig, mut side, folder) = rig(test, deaths).await?;
        rig.publish(side.host.address());
        let mut editions = (0..deaths).map(|number| edition(plugin::redis(), number));
        let mut drop_in = || folder.drop_in(KIND, &editions.next().context("an edition")??);
        for step in STEPS.iter().cycle().take(STEPS.len() * usize::try_from(ROUNDS)?) {
            let ended = side.host.stop().await?;
            ensure!(ended.code == Some(0), "the host ended with {:?} when asked to stop", ended.code);
            side.host.start_again(|plan| plan.env("WHIMBREL_CRASH_AT", step)).await?;
            drop_in()?;
            says(&side.host, TRIED, 1).await?;
            rig.open_share();
            side.host.ended().await.map_err(|late| late.context(format!("{step} was not reached")))?;
            rig.ledger.fault(format!("died at {step}"));
            side.host.start_again(|plan| plan.without_env("WHIMBREL_CRASH_AT")).await?;
        }
        let mut random = test.random();
        for kill in 0..KILLS {
            drop_in()?;
            says(&side.host, TRIED, 1).await?;
            rig.open_share();
            // Some moment of what is under way: there is no condition to wait for.
            tokio::time::sleep(Duration::from_millis(random.u64(0..KILL_WITHIN_MILLIS))).await;
            rig.ledger.fault(format!("kill -9 amid a swap, number {kill}"));
            side.host.kill().await?;
            side.host.start_again(|plan| plan).await?;
        }
        rig.finish(&[side]).await?;
        Ok(())
    })
}

/// Redis is away when the file comes: it is taken once Redis is back, without anybody touching it again.
#[test]
fn a_file_that_came_at_the_wrong_moment_is_tried_again() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let mut redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[]);
        let broker = broker.replacen("spec:\n", "spec:\n  initTimeout: 1s\n", 1);
        let host = folder.of(test.host("shop")?.resource(broker)?).start().await?;
        redis.kill().await?;
        folder.drop_in(KIND, &edition(plugin::redis(), 1)?)?;
        says(&host, "not taken yet, the running adapter serves on", 1).await?;
        ensure!(host.log()?.contains("initTimeout") || host.log()?.contains("in time"), "it does not say why");
        redis.start_again().await?;
        says(&host, TAKEN, 1).await?;
        let published =
            until("a publish to succeed", async || http::publish_ok(host.http().ok()?, "bus/t", "{}").await.ok());
        published.await
    })
}
