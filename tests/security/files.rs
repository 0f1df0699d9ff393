//! `.wasm` files that are no plugins: the start ends and names the file and what is wrong with it; where the resource
//! says that errors are to be ignored, everybody else is served.

use std::path::PathBuf;

use anyhow::Result;

use crate::harness::host::HostPlan;
use crate::harness::{http, plugin, resource, run};

/// The exit code for a start that failed.
const FAILED: i32 = 1;

/// A core module: the magic number and version 1, and nothing else (core specification, section 5.5.16).
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A component that imports a function nobody offers: preamble, a function type without parameters and result, the
/// import (component-model, Binary.md).
const UNKNOWN_IMPORT: &[u8] = b"\0asm\x0d\0\x01\0\x07\x05\x01\x40\0\x01\0\x0a\x16\x01\0\x11nobody-knows-this\x01\0";

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

fn component(plan: HostPlan, content: &Content, more: &str) -> Result<HostPlan> {
    let file = match content {
        Content::Bytes(bytes) => plan.file("odd.wasm", bytes)?,
        Content::File(file) => file.clone(),
    };
    let yaml = resource::component("odd", "pubsub.odd", &[]);
    plan.resource(resource::from_file(&yaml, &file, more))
}

/// As an adapter, as an adapter whose errors are ignored, and as a handler.
fn check(content: &Content, texts: &[&str]) -> Result<()> {
    run(async |test| {
        let ended = component(test.host("me")?, content, "")?.run_to_the_end().await?;
        assert_eq!(ended.code, Some(FAILED), "{}", ended.log);
        for text in texts.iter().chain(&["odd"]) {
            assert!(ended.log.contains(text), "{text:?} is not in\n{}", ended.log);
        }
        assert!(!ended.log.contains("panicked"), "{}", ended.log);

        let plan = component(test.host("me")?, content, "  ignoreErrors: true\n")?;
        let host = plan.resource(resource::in_memory("bus"))?.start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        assert_ne!(http::publish(host.http()?, "odd/t", "{}").await?.status, 204);
        assert!(host.log()?.contains("odd"), "{}", host.log()?);
        Ok(())
    })
}

fn check_handler(content: &Content, texts: &[&str]) -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::queue("bus"))?;
        let file = match content {
            Content::Bytes(bytes) => plan.file("odd.wasm", bytes)?,
            Content::File(file) => file.clone(),
        };
        let yaml = resource::handler("strange", &file, &[("bus", "t", None)], "{}");
        let ended = plan.resource(yaml)?.run_to_the_end().await?;
        assert_eq!(ended.code, Some(FAILED), "{}", ended.log);
        for text in texts.iter().chain(&["strange"]) {
            assert!(ended.log.contains(text), "{text:?} is not in\n{}", ended.log);
        }
        Ok(())
    })
}

fn truncated() -> Result<Content> {
    let mut bytes = std::fs::read(plugin::in_memory())?;
    bytes.truncate(bytes.len() / 2);
    Ok(Content::Bytes(bytes))
}

#[test]
fn cut_short() -> Result<()> {
    check(&truncated()?, &["odd.wasm"])?;
    check_handler(&truncated()?, &["odd.wasm"])
}

#[test]
fn empty() -> Result<()> {
    check(&Content::Bytes(vec![]), &["odd.wasm"])?;
    check_handler(&Content::Bytes(vec![]), &["odd.wasm"])
}

#[test]
fn no_wasm_at_all() -> Result<()> {
    check(&Content::Bytes(b"#!/bin/sh\nexit 0\n".to_vec()), &["odd.wasm"])
}

#[test]
fn a_core_module() -> Result<()> {
    check(&Content::Bytes(CORE_MODULE.to_vec()), &["odd.wasm", "core WebAssembly module"])?;
    check_handler(&Content::Bytes(CORE_MODULE.to_vec()), &["odd.wasm", "core WebAssembly module"])
}

#[test]
fn the_wrong_world() -> Result<()> {
    let handler = Content::File(plugin::misbehaving_handler().to_owned());
    check(&handler, &["misbehaving-handler", "does not fit the world `broker-adapter`"])?;
    let adapter = Content::File(plugin::misbehaving_adapter().to_owned());
    check_handler(&adapter, &["pubsub.misbehaving", "does not fit the world `subscriber`"])
}

#[test]
fn an_import_nobody_offers() -> Result<()> {
    check(&Content::Bytes(UNKNOWN_IMPORT.to_vec()), &["odd.wasm", "nobody-knows-this"])?;
    check_handler(&Content::Bytes(UNKNOWN_IMPORT.to_vec()), &["odd.wasm", "nobody-knows-this"])
}

#[test]
fn a_file_that_is_not_there() -> Result<()> {
    check(&Content::File("nowhere.wasm".into()), &["nowhere.wasm"])?;
    check_handler(&Content::File("nowhere.wasm".into()), &["nowhere.wasm"])
}
