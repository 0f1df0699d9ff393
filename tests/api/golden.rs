//! Every request that was recorded from the real sidecar, sent to ours: the same answers, the same deliveries.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures::StreamExt;
use serde_json::Value;

use super::better::{BETTER, Better, DIFFERENCES, Difference, Ours, better};
use super::compare;
use super::recorded::{Scene, Step, scenes};
use crate::harness::app::{App, Seen};
use crate::harness::host::Host;
use crate::harness::http::{self, Answer};
use crate::harness::{Test, run, until};

/// How many hosts run at the same time.
const HOSTS_AT_ONCE: usize = 6;

/// How long nothing more may come after everything expected has come.
const QUIET: Duration = Duration::from_millis(60);

/// The same in the scenes whose app asks for another attempt.
const QUIET_AFTER_RETRY: Duration = Duration::from_millis(600);

/// How our host ends where a resource is wrong, so that whoever starts it can tell; the sidecar has 1 for every failure, or
/// stays and is never ready.
const RESOURCES: i32 = 78;

#[test]
fn answers_and_delivers_what_was_recorded() -> Result<()> {
    run(async |test| {
        let scenes = scenes()?;
        let count = scenes.len();
        let replays = scenes.into_iter().map(|scene| async move {
            let wrong = replay(test, &scene).await;
            let wrong = wrong.unwrap_or_else(|error| vec![format!("{error:#}")]);
            wrong.into_iter().map(|wrong| format!("{}: {wrong}", scene.name)).collect::<Vec<_>>()
        });
        let wrong: Vec<_> = futures::stream::iter(replays).buffer_unordered(HOSTS_AT_ONCE).concat().await;
        if !wrong.is_empty() {
            bail!("{} differences in {count} scenes:\n{}", wrong.len(), wrong.join("\n"));
        }
        Ok(())
    })
}

#[test]
fn the_tables_of_differences_name_what_there_is() -> Result<()> {
    let scenes = scenes()?;
    for entry in BETTER {
        let Some(scene) = scenes.iter().find(|scene| scene.name == entry.scene) else {
            bail!("no scene is named {}", entry.scene);
        };
        let mut steps = scene.steps.iter().enumerate();
        let named = steps.any(|(i, step)| {
            better(&scene.name, i, &step.method, &step.path).is_some_and(|found| std::ptr::eq(found, entry))
        });
        ensure!(named, "no step of {} is {} ({})", entry.scene, entry.request, entry.reason);
    }
    Ok(())
}

/// Each is given by a test, and by its name.
#[test]
fn the_differences_that_no_scene_shows_are_tested() -> Result<()> {
    let mut tests = String::new();
    read_all(Path::new(env!("CARGO_MANIFEST_DIR")), &mut tests)?;
    for Difference { row, reason } in DIFFERENCES {
        ensure!(tests.contains(&format!("differs(\"{row}\")")), "no test differs in {row} ({reason})");
    }
    Ok(())
}

/// The text of every source file below a folder.
fn read_all(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(())
}

async fn replay(test: &Test, scene: &Scene) -> Result<Vec<String>> {
    let app = App::start().await?;
    app.subscribe(&scene.subscribe);
    for (path, replies) in scene.replies()? {
        app.plan(&path, replies);
    }
    let mut plan = test.host("me")?;
    for resource in &scene.resources {
        plan = plan.resource(resource)?;
    }
    if scene.app_port {
        plan = plan.app(&app);
    }
    if !scene.ready {
        let ended = plan.run_to_the_end().await?;
        return Ok((ended.code != Some(RESOURCES))
            .then(|| format!("it ended with {:?}", ended.code))
            .into_iter()
            .collect());
    }
    let mut host = plan.start().await?;
    let quiet = if scene.retries() { QUIET_AFTER_RETRY } else { QUIET };
    let mut wrong = vec![];
    for (number, step) in scene.steps.iter().enumerate() {
        let meant = better(&scene.name, number, &step.method, &step.path);
        let found = take(&host, &app, step, meant, quiet).await?;
        wrong.extend(found.into_iter().map(|wrong| format!("step {number} ({}): {wrong}", step.title())));
    }
    let ended = host.stop().await?;
    if ended.code != Some(0) {
        wrong.push(format!("the host ended with {:?}", ended.code));
    }
    Ok(wrong)
}

/// Sends one request and says what differs.
async fn take(host: &Host, app: &App, step: &Step, meant: Option<&Better>, quiet: Duration) -> Result<Vec<String>> {
    let headers: Vec<_> = step.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = http::send(host.http()?, &step.method, &step.path, &headers, &step.body()?).await?;
    let expected = match meant.map(|better| &better.ours) {
        Some(Ours::Delivers(_)) => 1,
        Some(Ours::Refuses(_)) => 0,
        _ => step.deliveries.len(),
    };
    let arrived = until("the deliveries", async || (app.seen().len() >= expected).then_some(())).await;
    tokio::time::sleep(quiet).await;
    let deliveries = app.take_seen();
    let Some(better) = meant else {
        let mut wrong = compare::deliveries(&step.deliveries, &deliveries);
        wrong.extend(compare::answer(&ours(step), &own_fields_removed(&step.path, answer)));
        return Ok(wrong);
    };
    let wrong = differs_from_meant(step, &answer, &deliveries, &better.ours);
    Ok(wrong.into_iter().chain(arrived.err().map(|late| late.to_string())).collect())
}

fn differs_from_meant(step: &Step, answer: &Answer, deliveries: &[Seen], ours: &Ours) -> Vec<String> {
    let status = |expected: u16| {
        (answer.status != expected).then(|| format!("status is {}, not {expected}: {}", answer.status, answer.text()))
    };
    match ours {
        Ours::Refuses(expected) => {
            let delivered = deliveries.iter().map(|seen| format!("a refused message was delivered to {}", seen.path));
            delivered.chain(status(*expected)).collect()
        }
        Ours::Delivers(text) => {
            let found = deliveries.iter().filter(|seen| String::from_utf8_lossy(&seen.body).contains(text)).count();
            let missing = (found != 1).then(|| format!("{found} deliveries hold {text:?}: {deliveries:?}"));
            missing.into_iter().chain(status(204)).collect()
        }
        Ours::OwnBody => {
            let mut wrong = compare::deliveries(&step.deliveries, deliveries);
            wrong.extend(status(step.response.status));
            wrong
        }
        Ours::OwnReason => {
            let mut wrong = compare::deliveries(&step.deliveries, deliveries);
            let mut expected = step.response.clone();
            let mut actual = answer.clone();
            expected.body = without_reason(&expected.body);
            actual.body = without_reason(&actual.text()).into();
            wrong.extend(compare::answer(&expected, &actual));
            wrong
        }
    }
}

/// `details[].metadata.error` removed, where it is given and not empty.
fn without_reason(body: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    for detail in json["details"].as_array_mut().into_iter().flatten() {
        if let Some(metadata) = detail["metadata"].as_object_mut()
            && metadata.get("error").and_then(Value::as_str).is_some_and(|error| !error.is_empty())
        {
            metadata.remove("error");
        }
    }
    json.to_string()
}

/// The recorded answer without what is another product's own.
fn ours(step: &Step) -> super::recorded::Response {
    let mut response = step.response.clone();
    let quoted = response.body.replace(":<port>", r#":"<port>""#);
    if let Some(body) = own_fields(&step.path, quoted.as_bytes()) {
        response.body = body;
    }
    response
}

fn own_fields_removed(path: &str, mut answer: Answer) -> Answer {
    if let Some(body) = own_fields(path, &answer.body) {
        answer.body = body.into();
    }
    answer
}

/// The metadata API without version, features, actors and how brokers stand, which each product fills with its own.
fn own_fields(path: &str, body: &[u8]) -> Option<String> {
    if path != "/v1.0/metadata" {
        return None;
    }
    let mut body = serde_json::from_slice::<Value>(body).ok()?;
    let fields = body.as_object_mut()?;
    for own in ["runtimeVersion", "enabledFeatures", "actorRuntime"] {
        fields.remove(own);
    }
    if let Some(extended) = fields.get_mut("extended").and_then(Value::as_object_mut) {
        extended.retain(|key, _| key != "daprRuntimeVersion" && !key.starts_with("broker."));
    }
    Some(body.to_string())
}
