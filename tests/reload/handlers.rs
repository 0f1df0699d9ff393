//! A handler's file is replaced again and again while messages flow over Redis, by good ones and by broken ones: every
//! message is handled, and what is broken leaves the one before in service.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::files::{edition, said, says};
use crate::delivery::loss::onward::{DONE, WORKER, follow};
use crate::delivery::loss::rig::{RUN_MAX, Rig, Side, TOPIC, dead_letters_of};
use crate::harness::redis::Redis;
use crate::harness::{plugin, resource, run_within};

/// How often the file is replaced. Every third one is broken.
const SWAPS: u64 = 12;

/// What the host says of a file that it has taken, the first one included.
const LOADED: &str = "handler loaded";

/// What it says of one that it has not.
const NOT_TAKEN: &str = "the running handler serves on";

/// What the handler does with message `n`.
fn orders(n: u64) -> String {
    let deed = if n % 100 == 50 { "drop" } else { "publish" };
    format!(r#","do":"{deed}","pubsub":"bus","topic":"{DONE}""#)
}

#[test]
fn a_handler_is_replaced_again_and_again() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let (mut rig, mut waiting) = Rig::with(test, SWAPS, &[WORKER], orders).await?;
        let file = test.folder("handlers")?.join("handler.wasm");
        drop_in(&file, &edition(plugin::misbehaving_handler(), 0)?)?;
        let dead = dead_letters_of(WORKER);
        // One instance: slower than the publishers, so that messages are in flight at each swap.
        let handler = resource::handler(WORKER, &file, &[("bus", TOPIC, Some(dead.as_str()))], "{instances: 1}");
        let broker = resource::redis("bus", rig.redis.address(), &[]);
        let plan = Rig::plan(test, "publisher", &broker)?.resource(handler)?;
        let side = Rig::side_without_app(waiting.pop().context("one handler")?, plan).await?;
        compiled(&side, &file).await?;
        let following = follow(rig.redis.reader(DONE).await?, rig.seed, Arc::clone(&side.subscriber));
        rig.publish(side.host.address());
        for swap in 0..SWAPS {
            rig.in_the_middle(rig.share() / 4).await?;
            let (loaded, refused) = (said(&side.host, LOADED), said(&side.host, NOT_TAKEN));
            if swap % 3 == 2 {
                drop_in(&file, &broken(swap)?)?;
                says(&side.host, NOT_TAKEN, refused + 1).await?;
                ensure!(said(&side.host, LOADED) == loaded, "a broken file was loaded");
            } else {
                drop_in(&file, &edition(plugin::misbehaving_handler(), swap % 3)?)?;
                says(&side.host, LOADED, loaded + 1).await?;
            }
            rig.ledger.fault(format!("swap {swap}"));
        }
        let report = rig.finish(std::slice::from_ref(&side)).await?;
        following.abort();
        ensure!(report.unknown == 0, "{} publishes failed", report.unknown);
        let log = side.host.log()?;
        let subscribed = log.lines().filter(|line| line.contains(" subscribed ")).count();
        ensure!(subscribed == 1, "its feed has a gap:\n{log}");
        all_of_them_served(&rig.redis).await
    })
}

/// The two good files are dropped in once before, so that what is under test is the swap and not the compiler.
async fn compiled(side: &Side, file: &Path) -> Result<()> {
    for number in [1, 0, 1] {
        let loaded = said(&side.host, LOADED);
        drop_in(file, &edition(plugin::misbehaving_handler(), number)?)?;
        says(&side.host, LOADED, loaded + 1).await?;
    }
    Ok(())
}

fn drop_in(file: &Path, bytes: &[u8]) -> Result<()> {
    let beside: PathBuf = file.with_extension("new");
    std::fs::write(&beside, bytes)?;
    Ok(std::fs::rename(beside, file)?)
}

/// What must not be taken, each in its own way.
fn broken(swap: u64) -> Result<Vec<u8>> {
    let mut good = std::fs::read(plugin::misbehaving_handler())?;
    Ok(match swap / 3 % 4 {
        0 => b"no component".to_vec(),
        1 => good.split_off(good.len() / 2),
        2 => {
            good.truncate(good.len() / 2);
            good
        }
        _ => std::fs::read(plugin::in_memory())?,
    })
}

/// Each file that was taken has handled something: an instance counts its events, and begins at 1.
async fn all_of_them_served(redis: &Redis) -> Result<()> {
    let mut firsts = 0;
    for entry in redis.entries(DONE).await? {
        let event: Value = serde_json::from_slice(&entry.data)?;
        firsts += u64::from(event["data"]["handled"] == 1);
    }
    let taken = SWAPS - SWAPS / 3;
    ensure!(firsts >= taken, "{firsts} instances have handled something, of {taken} files");
    Ok(())
}
