//! Thousands of tries to reach a topic that an app may not have, over every way in. The oracle is the broker itself: an
//! independent client looks at which topics exist, and the app at what it was sent.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::json;

use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::scale::scaled;
use crate::harness::{http, plugin, resource, run_within, until};

/// Tries for each way in.
const TRIES: u64 = 1_500;

/// Tries that a handler component makes.
const HANDLER_TRIES: u64 = 500;

/// How long one of these tests may take.
const RUN_MAX: std::time::Duration = std::time::Duration::from_secs(240);

/// The one topic that `me` may publish to, and one that it may not.
const MINE: &str = "orders";
const FOREIGN: &str = "salaries";

/// What `me` and the handler `worker` may do.
const SCOPES: [(&str, &str); 3] = [
    ("publishingScopes", "me=orders;worker=done,dead"),
    ("subscriptionScopes", "me=orders;worker=orders"),
    ("protectedTopics", "vault"),
];

/// One way to write a topic that looks like another to somebody who reads carelessly.
fn disguised(random: &mut Rng) -> String {
    let topics = [MINE, FOREIGN, "vault", "prod-orders", "prod||salaries"];
    let topic = topics.get(random.usize(..topics.len())).copied().unwrap_or(MINE);
    let mut text = topic.to_owned();
    for _ in 0..random.u8(1..4) {
        text = match random.u8(..14) {
            0 => text.to_uppercase(),
            1 => format!("{MINE}/../{text}"),
            2 => format!("{text}/"),
            3 => format!("./{text}"),
            4 => format!(" {text}"),
            5 => format!("{text} "),
            6 => format!("{MINE},{text}"),
            7 => format!("{text}\u{0}"),
            8 => format!("{text};{MINE}"),
            9 => format!("{text}={MINE}"),
            10 => text.replacen('s', "\u{17f}", 1),
            11 => format!("{text}*"),
            12 => format!("{text}\r\n"),
            _ => text.chars().rev().collect(),
        };
    }
    text
}

/// The topic in a path: each byte plain, encoded once or encoded twice.
fn encoded(random: &mut Rng, topic: &str) -> String {
    let how = random.u8(..4);
    let mut path = String::new();
    for byte in topic.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/.-_~*".contains(&byte);
        match how {
            0 | 3 if plain => path.push(char::from(byte)),
            1 => write!(path, "%25{byte:02X}").unwrap_or_default(),
            2 if random.bool() => write!(path, "%{byte:02x}").unwrap_or_default(),
            _ if plain => path.push(char::from(byte)),
            _ => write!(path, "%{byte:02X}").unwrap_or_default(),
        }
    }
    path
}

/// What else a request may carry that names a topic.
fn query(random: &mut Rng) -> &'static str {
    let all = [
        "",
        "?metadata.topic=salaries",
        "?metadata.cloudevent.topic=salaries",
        "?metadata.cloudevent.pubsubname=other",
        "?metadata.deadLetterTopic=salaries",
        "?topic=salaries",
        "?metadata.rawPayload=true",
        "?metadata.namespace=prod",
    ];
    all.get(random.usize(..all.len())).copied().unwrap_or_default()
}

/// A body that names topics, too.
fn body(random: &mut Rng) -> (&'static str, String) {
    let event = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "topic": FOREIGN, "data": 1});
    match random.u8(..3) {
        0 => ("application/cloudevents+json", event.to_string()),
        1 => ("application/json", json!({ "topic": FOREIGN }).to_string()),
        _ => ("text/plain", FOREIGN.to_owned()),
    }
}

/// The topics that exist at the broker.
async fn topics(redis: &Redis) -> Result<BTreeSet<String>> {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut redis.client().await?).await?;
    Ok(keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect())
}

/// Besides these topics none exists, and these do: the tries went through to where it is decided.
async fn only(redis: &Redis, expected: &[&str]) -> Result<()> {
    let found = topics(redis).await?;
    let expected: BTreeSet<String> = expected.iter().map(|topic| (*topic).to_owned()).collect();
    ensure!(found == expected, "topics {found:?} exist, and only {expected:?} may");
    Ok(())
}

/// Publishes to `MINE` and to the disguised, under `prefix` of the path, and looks at the broker.
fn publishing(prefix: &'static str, bulk: bool) -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let redis = Redis::start(test).await?;
        let plain = resource::redis("bus", redis.address(), &SCOPES);
        // The same broker with a namespace before each topic: `prod` is the process's.
        let mut spaced = SCOPES.to_vec();
        spaced.push(("consumerID", "{namespace}"));
        let other = resource::redis("other", redis.address(), &spaced);
        let host = test.host("me")?.resource(plain)?.resource(other)?.env("NAMESPACE", "prod").start().await?;
        let mut random = test.random();
        let mut through = 0;
        for n in 0..scaled(TRIES) {
            let topic = if n % 100 == 0 { MINE.to_owned() } else { disguised(&mut random) };
            let path = format!("{prefix}/bus/{}{}", encoded(&mut random, &topic), query(&mut random));
            let (kind, body) = body(&mut random);
            let (kind, body) = if bulk {
                let event = serde_json::from_str(&body).unwrap_or(json!(body));
                let entry =
                    json!({"entryId": "1", "event": event, "contentType": kind, "metadata": {"topic": FOREIGN}});
                ("application/json", json!([entry]).to_string())
            } else {
                (kind, body)
            };
            let answer = http::send(host.http()?, "POST", &path, &[("content-type", kind)], body.as_bytes()).await?;
            through += u32::from(answer.status < 300);
            // A bulk publish tells of its entries; either way nothing here is the server's fault.
            ensure!(answer.status < 500, "{path}: {} {}", answer.status, answer.text());
        }
        ensure!(through > 0, "nothing reached the one topic that is open");
        only(&redis, &[MINE]).await
    })
}

#[test]
fn publishing_one() -> Result<()> {
    publishing("/v1.0/publish", false)
}

#[test]
fn publishing_in_bulk() -> Result<()> {
    publishing("/v1.0/publish/bulk", true)
}

#[test]
fn publishing_in_bulk_on_the_older_path() -> Result<()> {
    publishing("/v1.0-alpha1/publish/bulk", true)
}

/// A handler component that is told to publish where its identity may not.
#[test]
fn publishing_from_a_handler() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let redis = Redis::start(test).await?;
        let file = plugin::misbehaving_handler();
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &SCOPES))?;
        let handler = resource::handler("worker", file, &[("bus", MINE, Some("dead"))], "{instances: 4}");
        let host = plan.resource(handler)?.start().await?;
        let mut random = test.random();
        for n in 0..scaled(HANDLER_TRIES) {
            // `worker` may publish to `done`; its host's `me` to `orders`, which is not its own.
            let topic = if n % 100 == 0 { "done".to_owned() } else { disguised(&mut random) };
            let what = json!({"do": "publish", "pubsub": "bus", "topic": topic});
            http::publish_ok(host.http()?, "bus/orders", &what.to_string()).await?;
        }
        let all = async || (redis.pending(MINE, "worker").await.ok()? == 0).then_some(());
        until("the handler to have tried them all", all).await?;
        let published = redis.entries(MINE).await?.len() as u64;
        ensure!(published == scaled(HANDLER_TRIES), "the handler published to {MINE}: {published} messages");
        only(&redis, &[MINE, "done", "dead"]).await
    })
}

/// Dead-lettering is publishing: a dead-letter topic that the app may not publish to stays empty, and nothing is lost.
#[test]
fn dead_lettering() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        app.plan("/in", [Reply::word("DROP")]);
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &SCOPES))?;
        let host = plan.resource(resource::subscription("bus", MINE, "/in", Some(FOREIGN)))?.app(&app).start().await?;
        for n in 0..20 {
            http::publish_ok(host.http()?, "bus/orders", &n.to_string()).await?;
        }
        app.wait_for(20, "/in").await?;
        until("the refusal to be said", async || host.log().ok()?.contains("cannot be dead-lettered").then_some(()))
            .await?;
        ensure!(redis.pending(MINE, "me").await? == 20, "what could not be dead-lettered was acknowledged");
        only(&redis, &[MINE]).await
    })
}

/// An app sees of what is published only the topics, and what the patterns match, that it was granted, whatever it
/// subscribes to.
#[test]
fn subscribing() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let app = App::start().await?;
        let bus = resource::component("bus", "pubsub.in-memory", &[("subscriptionScopes", "me=orders,ord*")]);
        let mut plan = test.host("me")?.resource(bus)?;
        for (topic, path) in [("*", "/all"), ("ord*", "/some"), (FOREIGN, "/foreign"), ("ORDERS", "/case")] {
            plan = plan.resource(resource::subscription("bus", topic, path, None))?;
        }
        let host = plan.resource(resource::subscription("bus", MINE, "/in", None))?.app(&app).start().await?;
        let mut random = test.random();
        for _ in 0..scaled(TRIES) {
            let topic = disguised(&mut random);
            let path = format!("bus/{}", encoded(&mut random, &topic));
            // Some names are none at all; they are refused.
            http::publish(host.http()?, &path, "1").await?;
        }
        publish_last(&host).await?;
        app.wait_for(1, "/in").await?;
        let last = async || app.seen().iter().filter(|seen| is_last(seen)).count().ge(&2).then_some(());
        until("the last message to arrive on each subscription that may have it", last).await?;
        for seen in app.seen() {
            let event = seen.event()?;
            let topic = event["topic"].as_str().context("a topic")?.to_owned();
            let granted = match seen.path.as_str() {
                "/in" => topic == MINE,
                "/some" => topic.starts_with("ord"),
                _ => false,
            };
            ensure!(granted, "{} was sent an event of {topic:?}", seen.path);
        }
        Ok(())
    })
}

async fn publish_last(host: &Host) -> Result<()> {
    http::publish_ok(host.http()?, "bus/orders", r#""last""#).await
}

fn is_last(seen: &crate::harness::app::Seen) -> bool {
    seen.data().is_ok_and(|data| data == "last")
}
