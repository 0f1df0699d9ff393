//! The kit against adapters that lie: each lie is found by the check that is meant for it, and no other check fails. (That
//! some cannot be tested then, and say because of which, is right.)

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::suite;
use crate::harness::brokers::{Kind, Server};
use crate::harness::{Test, run_within};

/// How long all of them together may take.
const LIARS_MAX: Duration = Duration::from_secs(1200);

/// How many are judged at the same time: most of what the kit does is to wait.
const LIARS_AT_ONCE: usize = 4;

/// No lie: nothing is found.
const HONEST: &[(&str, &str)] = &[("nothing", "")];

/// A lie that shows while nothing breaks, and the check that finds it.
const LIES: &[(&str, &str)] = &[
    ("accepts-bad-settings", "B1"),
    ("fails-together", "B10"),
    ("answers-short", "D9"),
    ("mangles-bytes", "C4"),
    ("mangles-headers", "B6"),
    ("acks-early", "B9"),
    ("ignores-credit", "C1"),
    ("reorders", "D7"),
    ("duplicates", "C2"),
    ("drops-leases", "C3"),
    ("counts-nothing", "B12"),
    ("shares-groups", "B5"),
    ("acks-on-retry", "D5"),
    ("forgets-retries", "D5"),
    ("retries-at-once", "C5"),
    ("dead-letters", "B13"),
    ("ignores-pause", "B14"),
    ("hangs-on-close", "D12"),
    ("hangs-on-stop", "B9"),
    ("answers-no-ping", "D2"),
    ("forgets-content-type", "B7"),
    ("takes-tokens-twice", "C6"),
    ("ignores-start", "C9"),
];

/// A lie that shows when something breaks.
const LIES_UNDER_FAULTS: &[(&str, &str)] = &[
    ("confirms-first", "S4"),
    ("unknown-is-ok", "S4"),
    ("takes-stale-tokens", "S5"),
    ("forgets-on-reconnect", "S5"),
    ("spins-on-error", "S9"),
    ("traps-on-error", "S15"),
    ("gives-up-when-refused", "S17"),
];

/// A password can be changed only where there is one. What dies of its lie is opened again with the one that it was given,
/// so only the lie about passwords meets with a change of them.
const LOGIN: [&str; 2] = ["--auth", "kit:first-secret"];

#[test]
fn every_lie_is_found_by_the_check_meant_for_it() -> Result<()> {
    run_within(LIARS_MAX, async |test| {
        let redis = Server::start(test, Kind::Redis, &[]).await?;
        let mut liars = Vec::new();
        for (lie, check) in HONEST.iter().chain(LIES) {
            liars.push((*lie, *check, config(test, &redis, lie).await?, &[][..]));
        }
        judge(liars).await
    })
}

/// Each has a broker of its own, for that is killed on the way.
#[test]
fn every_lie_under_faults_is_found_by_the_check_meant_for_it() -> Result<()> {
    run_within(LIARS_MAX, async |test| {
        let (mut brokers, mut liars) = (Vec::new(), Vec::new());
        for (lie, check) in LIES_UNDER_FAULTS {
            let login = if *check == "S17" { &LOGIN[..] } else { &[] };
            let redis = Server::start(test, Kind::Redis, login).await?;
            liars.push((*lie, *check, config(test, &redis, lie).await?, &["--faults"][..]));
            brokers.push(redis);
        }
        judge(liars).await
    })
}

/// A lie, the check that finds it, the kit's file, its flags.
type Liar = (&'static str, &'static str, PathBuf, &'static [&'static str]);

async fn judge(liars: Vec<Liar>) -> Result<()> {
    let (turns, mut judged) = (Arc::new(Semaphore::new(LIARS_AT_ONCE)), JoinSet::new());
    for (lie, check, config, flags) in liars {
        let turns = Arc::clone(&turns);
        judged.spawn(async move {
            let _turn = turns.acquire().await?;
            let report = suite::conform(whimbrel_artifacts::LIAR, &config, flags).await;
            let report = report.with_context(|| format!("the lie {lie}"))?;
            let expected: Vec<&str> = [check].into_iter().filter(|check| !check.is_empty()).collect();
            let found = report.ids("failed");
            ensure!(found == expected, "the lie {lie}: {expected:?} expected{}", report.complaints());
            Ok(())
        });
    }
    let mut wrong = Vec::new();
    while let Some(outcome) = judged.join_next().await {
        wrong.extend(outcome?.err().map(|error: anyhow::Error| format!("{error:#}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The file for an honest Redis adapter, and the lie.
async fn config(test: &Test, redis: &Server, lie: &str) -> Result<PathBuf> {
    let setting = format!("  metadata:\n    - {{name: lie, value: {lie}}}\n    - {{name: redisHost");
    let honest = redis.profile().await?;
    let text = honest.replace("pubsub.redis", "pubsub.liar").replace("  metadata:\n    - {name: redisHost", &setting);
    ensure!(text.contains(lie) && text.contains("pubsub.liar"), "another profile: {honest}");
    let file = test.folder(lie)?.join("liar.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}
