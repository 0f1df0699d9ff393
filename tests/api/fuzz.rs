//! The API against its own OpenAPI document: thousands of requests made from it, sound and broken ones, to a real host. No
//! answer is of a status, a content type or a shape that the document does not declare; what is sound succeeds; and the
//! host is as well afterwards as before.

mod document;
mod draw;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::app::App;
use crate::harness::{http, resource, run, scale};
use document::{Document, Operation};
use draw::{Draw, Request, Soundness};

/// Requests at scale 1.
const REQUESTS: u64 = 2_000;

/// Small, so that too large is cheap.
const BODY_MAX: &str = "64Ki";

/// What is published after it all is still delivered.
async fn check_honest(host: &crate::harness::host::Host, app: &App) -> Result<()> {
    http::publish_ok(host.http()?, "bus/honest", r#"{"after":"all"}"#).await?;
    let seen = app.wait_for(1, "/honest").await?;
    ensure!(seen[0].event()?["data"] == json!({ "after": "all" }), "another event came");
    Ok(())
}

#[test]
fn the_host_keeps_to_its_document() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.flag("--max-body-size", BODY_MAX);
        let scoped = [("mode", "queue"), ("allowedTopics", "allowed"), ("publishingScopes", "me=allowed")];
        let plan = plan
            .resource(resource::queue("bus"))?
            .resource(resource::component("scoped", "pubsub.in-memory", &scoped))?
            .resource(resource::subscription("bus", "honest", "/honest", None))?;
        let mut host = plan.app(&app).start().await?;
        let document = Document::of(&http::get(host.http()?, "/v1.0/openapi.json").await?.json()?)?;
        let mut draw = Draw::new(test.random());
        let mut statuses: BTreeMap<(String, u16), usize> = BTreeMap::new();
        for number in 0..scale::scaled(REQUESTS) {
            let operation = document.operation(usize::try_from(number)?);
            // It would end the host; its turn comes at the end.
            if operation.id == "shutdown" {
                continue;
            }
            let request = draw.request(&document, operation);
            let told = || format!("request {number} with seed {}: {request}", test.seed);
            let answer = http::raw(host.http()?, &request.bytes).await.with_context(told)?;
            check(&document, operation, &request, &answer).with_context(told)?;
            *statuses.entry((operation.id.clone(), answer.status)).or_default() += 1;
        }
        check_coverage(&statuses)?;
        check_honest(&host, &app).await?;
        let log = host.log()?;
        ensure!(!log.contains("panicked"), "something panicked: {log}");
        let answer = http::send(host.http()?, "POST", "/v1.0/shutdown", &[], b"").await?;
        ensure!(document.fits("shutdown", &answer)?, "shutdown was answered {}", answer.status);
        let ended = host.ended().await?;
        ensure!(ended.code == Some(0), "it ended with {:?}: {}", ended.code, ended.log);
        Ok(())
    })
}

/// Whether an answer is one that the document declares, and a success where the request was sound.
fn check(document: &Document, operation: &Operation, request: &Request, answer: &http::Answer) -> Result<()> {
    let told = || format!("answered {} {:?}: {}", answer.status, answer.headers, answer.text());
    match request.soundness {
        Soundness::Sound => {
            ensure!((200..300).contains(&answer.status), "a sound request was refused: {}", told());
            ensure!(document.fits(&operation.id, answer)?, "undeclared: {}", told());
        }
        Soundness::Refused => {
            ensure!((400..500).contains(&answer.status), "a wrong request was taken: {}", told());
            ensure!(document.fits(&operation.id, answer)?, "undeclared: {}", told());
        }
        Soundness::Odd => ensure!(document.fits(&operation.id, answer)?, "undeclared: {}", told()),
        Soundness::Elsewhere => ensure!(document.fits_any(request.has_no_body(), answer)?, "undeclared: {}", told()),
    }
    Ok(())
}

/// The requests came far enough to mean something.
fn check_coverage(statuses: &BTreeMap<(String, u16), usize>) -> Result<()> {
    let mut table = String::new();
    for ((id, status), count) in statuses {
        writeln!(table, "{id} {status}: {count}")?;
    }
    for (id, expected) in [
        ("publish", &[204, 400, 403, 404, 500][..]),
        ("bulkPublish", &[204, 400, 403, 404]),
        ("health", &[204, 500]),
        ("metadata", &[200]),
        ("setMetadata", &[204]),
        ("openapi", &[200]),
    ] {
        for status in expected {
            let is_known = statuses.keys().any(|(known, seen)| known.starts_with(id) && seen == status);
            ensure!(is_known, "{id} was never answered {status}:\n{table}");
        }
    }
    Ok(())
}
