//! Walks the recorded scenes of the real sidecar, where they are there (`../shared/golden` beside the repository):
//! what we store and read back must be what it delivered.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use serde_json::Value;

use super::{environment, pairs};
use crate::{Caller, Message, PublishRequest, Random, Trace, TraceParent};

/// The scenes that are about the envelope and nothing else.
const SCENES: [&str; 10] = [
    "json bodies",
    "content types, JSON bytes",
    "content types, bytes that are no text",
    "content types, plain text",
    "cloud events",
    "cloud events, content type variants",
    "cloud event overrides by query",
    "publish metadata",
    "raw payload to a raw subscription",
    "traces",
];

/// What the sidecar acknowledged and then never delivered, and ours delivers: a number beyond a double, and a metadata
/// entry without a name (which it cannot make a header of).
const DELIVERED_BY_US_ONLY: [&str; 2] = ["{\"n\":1.10,\"e\":1e400}", "metadata.=x"];

#[tokio::test(start_paused = true)]
async fn what_is_delivered_is_what_the_sidecar_delivered() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/daprd-1.18.1.jsonl");
    let Ok(recorded) = std::fs::read_to_string(path) else {
        eprintln!("the recorded scenes are not here; nothing was compared");
        return;
    };
    let mut compared = 0;
    for line in recorded.lines() {
        let scene: Value = serde_json::from_str(line).expect("a scene");
        if SCENES.contains(&text(&scene["name"])) {
            for step in scene["steps"].as_array().expect("steps") {
                compare(text(&scene["name"]), step);
                compared += 1;
            }
        }
    }
    assert!(compared > 150, "{compared}");
}

fn compare(scene: &str, step: &Value) {
    let about = format!("{scene}: {} {}", step["path"], step["body"]);
    let (topic, request) = request(step);
    let raw_subscription = scene.starts_with("raw payload") && topic == "t";
    let status = step["response"]["status"].as_u64().expect("a status");
    let known = format!("{} {}", text(&step["path"]), String::from_utf8_lossy(&request.data));
    let message = match super::wrap(request, &environment(), false) {
        Ok((message, _)) => message,
        Err(error) => return assert_ne!(status, 204, "{about}: refused: {error}"),
    };
    assert_eq!(status, 204, "{about}");
    let deliveries = step["deliveries"].as_array().expect("deliveries");
    match (delivered(&message, raw_subscription), deliveries.first()) {
        (Some(body), Some(expect)) => {
            let expect: Value = serde_json::from_str(text(&expect["body"])).expect("JSON");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            assert!(same(&body, &expect), "{about}\n{body}\n{expect}");
        }
        (None, None) => {}
        (Some(_), None) => {
            assert!(DELIVERED_BY_US_ONLY.iter().any(|better| known.contains(better)), "{about}: delivered by us only");
        }
        (None, Some(_)) => panic!("{about}: not delivered by us"),
    }
}

fn delivered(message: &Message, raw: bool) -> Option<bytes::Bytes> {
    let event = super::unwrap(message, &message.metadata, &Ok(raw), "bus", &Random::seeded(2)).ok()?;
    (!super::expired(&event, environment().clock.now())).then(|| event.body().clone())
}

fn request(step: &Value) -> (String, PublishRequest) {
    let path = text(&step["path"]).strip_prefix("/v1.0/publish/bus/").expect("a publish");
    let (topic, query) = path.split_once('?').unwrap_or((path, ""));
    let mut metadata: Vec<(&str, &str)> = Vec::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if let Some(name) = name.strip_prefix("metadata.")
            && !metadata.iter().any(|(known, _)| *known == name)
        {
            metadata.push((name, value));
        }
    }
    let header = |name: &str| step["headers"].get(name).and_then(Value::as_str).map(str::to_owned);
    let parent = header("traceparent").as_deref().and_then(TraceParent::parse);
    let request = PublishRequest {
        caller: Caller { app_id: "me".into() },
        pubsub: "bus".into(),
        topic: topic.to_owned(),
        data: STANDARD.decode(text(&step["body"])).expect("base64").into(),
        content_type: header("content-type"),
        metadata: pairs(&metadata),
        trace: Trace { state: header("tracestate").filter(|_| parent.is_some()), parent },
    };
    (topic.to_owned(), request)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a value is the recorded one, whose volatile parts are placeholders.
fn same(ours: &Value, recorded: &Value) -> bool {
    match (ours, recorded) {
        (Value::String(ours), Value::String(recorded)) => match recorded.as_str() {
            "<uuid>" => uuid::Uuid::parse_str(ours).is_ok(),
            "<time>" => DateTime::parse_from_rfc3339(ours).is_ok(),
            recorded => match recorded.strip_prefix("base64 of ") {
                None => ours == recorded,
                Some(inner) => {
                    let decoded = STANDARD.decode(ours).expect("base64");
                    let decoded: Value = serde_json::from_slice(&decoded).expect("JSON");
                    same(&decoded, &serde_json::from_str(inner).expect("JSON"))
                }
            },
        },
        (Value::Object(ours), Value::Object(recorded)) => {
            ours.len() == recorded.len()
                && ours.iter().all(|(name, value)| recorded.get(name).is_some_and(|recorded| same(value, recorded)))
        }
        (Value::Array(ours), Value::Array(recorded)) => {
            ours.len() == recorded.len() && ours.iter().zip(recorded).all(|(ours, recorded)| same(ours, recorded))
        }
        _ => ours == recorded,
    }
}
