//! Files that are no adapter for the resource, each in its own way: the running one serves on, and the log names the file
//! and the reason. A good one is taken afterwards.

use std::path::Path;

use anyhow::{Context, Result};

use super::files::{Folder, NOT_TAKEN, TAKEN, described, edition, says};
use crate::harness::redis::Redis;
use crate::harness::{http, plugin, resource, run};

/// The type that is replaced.
const KIND: &str = "pubsub.redis";

/// The description of its adapter: whoever carries it passes for one.
const REDIS: &str = include_str!("../../plugins/redis/plugin.yaml");

/// A setting that its resource does not have.
const DEMANDING: &str = "  - name: brandNew\n    type: string\n    required: true\n";

/// Drops in each of these files, for a broker whose settings let the misbehaving adapter misbehave so.
fn check(misbehave: &str, files: &[(Vec<u8>, &str)]) -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[("misbehave", misbehave)]);
        let broker = broker.replacen("spec:\n", "spec:\n  initTimeout: 2s\n", 1);
        let host = folder.of(test.host("shop")?.resource(broker)?).start().await?;
        for (number, (file, why)) in files.iter().enumerate() {
            folder.drop_in(KIND, file)?;
            says(&host, NOT_TAKEN, number + 1).await?;
            let log = host.log()?;
            let line = log.lines().rfind(|line| line.contains(NOT_TAKEN)).context("the line")?;
            assert!(line.contains(why) && line.contains("pubsub.redis.wasm"), "{why:?} is not in\n{line}");
            http::publish_ok(host.http()?, "bus/t", "{}").await?;
        }
        folder.drop_in(KIND, &edition(plugin::redis(), 1)?)?;
        says(&host, TAKEN, 1).await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        assert_eq!(redis.entries("t").await?.len(), files.len() + 1);
        Ok(())
    })
}

fn cut(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(file)?;
    bytes.truncate(bytes.len() / 2);
    Ok(bytes)
}

#[test]
fn what_is_no_adapter_for_it_is_not_taken() -> Result<()> {
    let core = b"\0asm\x01\0\0\0".to_vec();
    let files = [
        (b"no component".to_vec(), "not a valid WebAssembly component"),
        (core, "core WebAssembly module"),
        (cut(plugin::redis())?, "ends in the middle"),
        (described(plugin::misbehaving_handler(), REDIS)?, "does not fit the world"),
        (std::fs::read(plugin::in_memory())?, "it is a pubsub.in-memory, not a pubsub.redis"),
        (described(plugin::redis(), "type: [")?, "its plugin.yaml is wrong"),
        (described(plugin::redis(), &format!("{REDIS}{DEMANDING}"))?, "brandNew"),
        (described(plugin::misbehaving_adapter(), REDIS)?, "durable"),
    ];
    check("", &files)
}

#[test]
fn what_traps_when_it_opens_is_not_taken() -> Result<()> {
    check("trap-on-open", &[(described(plugin::misbehaving_adapter(), REDIS)?, "trapped while it opened")])
}

#[test]
fn what_never_comes_back_is_not_taken() -> Result<()> {
    check("loop-on-open", &[(described(plugin::misbehaving_adapter(), REDIS)?, "trapped while it opened")])
}

#[test]
fn what_takes_too_long_to_open_is_not_taken() -> Result<()> {
    check("hang-on-open", &[(described(plugin::misbehaving_adapter(), REDIS)?, "did not open in time")])
}
