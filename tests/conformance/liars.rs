//! The kit against adapters that lie: each lie is found by the check that is meant for it, and no other check fails. (That
//! some cannot be tested then, and say because of which, is right.)

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::suite;
use crate::harness::redis::Redis;
use crate::harness::{Test, run_within};

/// How long all of them together may take.
const LIARS_MAX: Duration = Duration::from_secs(900);

/// How many are judged at the same time: most of what the kit does is to wait.
const LIARS_AT_ONCE: usize = 4;

/// No lie: nothing is found.
const HONEST: &[(&str, &str)] = &[("nothing", "")];

/// A lie, and the check that finds it.
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
];

#[test]
fn every_lie_is_found_by_the_check_meant_for_it() -> Result<()> {
    run_within(LIARS_MAX, async |test| {
        let redis = Redis::start(test).await?;
        let (turns, mut judged) = (Arc::new(Semaphore::new(LIARS_AT_ONCE)), JoinSet::new());
        for (lie, check) in HONEST.iter().chain(LIES) {
            let config = config(test, &redis, lie)?;
            let turns = Arc::clone(&turns);
            judged.spawn(async move {
                let _turn = turns.acquire().await?;
                let report = suite::conform(whimbrel_artifacts::LIAR, &config, &[]).await;
                let report = report.with_context(|| format!("the lie {lie}"))?;
                let found = report.ids("failed");
                let expected: Vec<&str> = [*check].into_iter().filter(|check| !check.is_empty()).collect();
                anyhow::ensure!(found == expected, "the lie {lie}: {expected:?} expected{}", report.complaints());
                Ok(())
            });
        }
        let mut wrong = Vec::new();
        while let Some(outcome) = judged.join_next().await {
            wrong.extend(outcome?.err().map(|error: anyhow::Error| format!("{error:#}")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

fn config(test: &Test, redis: &Redis, lie: &str) -> Result<std::path::PathBuf> {
    let (file, address) = (test.folder(lie)?.join("liar.yaml"), redis.address());
    let text = format!(
        "apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: liar}}
spec:
  type: pubsub.liar
  metadata:
    - {{name: redisHost, value: '{address}'}}
    - {{name: processingTimeout, value: 2s}}
    - {{name: redeliverInterval, value: 500ms}}
    - {{name: lie, value: {lie}}}
---
apiVersion: whimbrel.dev/v1alpha1
kind: Conformance
spec:
  address: '{address}'
  lease: 2s
"
    );
    std::fs::write(&file, text)?;
    Ok(file)
}
