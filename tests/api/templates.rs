//! Consumer groups and templates (pubsub-behaviour 7), as an independent client of the broker sees them.
//!
//! | row | where else |
//! |---|---|
//! | 7 one group shares, two groups get a copy each | delivery/groups, delivery/hosts |
//! | 7 templates in any value | resources, whose values are seen by what they allow |
//! | 7 `{podName}` without a pod | resources |
//! | 7 in-memory knows no groups | guarantees (`every_subscriber_has_a_copy`) |
//! | 7 the exact spelling of `consumerID` | host/resources/tests/valid/groups |

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use super::tally::Tally;
use crate::harness::app::{App, Reply};
use crate::harness::redis::Redis;
use crate::harness::{http, resource, run, until};

/// What a component's metadata says of its consumer, and the group that comes of it; `me` is the app, `prod` the namespace.
const GROUPS: [(&str, &str, &str); 9] = [
    ("7 no consumerID", "", "me"),
    ("7 an empty one", "{name: consumerID, value: \"\"}", "me"),
    ("7 a blank one", "{name: consumerID, value: \"  \"}", "me"),
    ("7 one of its own", "{name: consumerID, value: shared}", "shared"),
    ("7 trimmed", "{name: consumerID, value: \" shared \"}", "shared"),
    ("7 {appID}", "{name: consumerID, value: \"of-{appID}-{appID}\"}", "of-me-me"),
    ("7 {podName}", "{name: consumerID, value: \"{podName}\"}", "pod-7"),
    ("7 {namespace}", "{name: consumerID, value: \"{namespace}\"}", "prod.me"),
    ("7 what is no template", "{name: consumerID, value: \"{appId}{\"}", "{appId}{"),
];

/// The names of a topic's groups.
async fn groups(redis: &Redis, stream: &str) -> Result<Vec<String>> {
    let asked = redis::cmd("XINFO").arg("GROUPS").arg(stream).to_owned();
    let info: redis::streams::StreamInfoGroupsReply = asked.query_async(&mut redis.client().await?).await?;
    Ok(info.groups.into_iter().map(|group| group.name).collect())
}

async fn topics(redis: &Redis) -> Result<BTreeSet<String>> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis.client().await?).await?;
    Ok(keys.into_iter().collect())
}

fn component(name: &str, redis: &Redis, item: &str) -> String {
    let item = if item.is_empty() { String::new() } else { format!("  - {item}\n") };
    resource::redis(name, redis.address(), &[]) + &item
}

#[test]
fn the_group_is_what_the_component_says() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let mut plan = test.host("me")?.env("NAMESPACE", "prod").env("POD_NAME", "pod-7");
        for (number, (_, item, _)) in GROUPS.iter().enumerate() {
            plan = plan.resource(component(&format!("c{number}"), &redis, item))?;
            plan = plan.resource(resource::subscription(&format!("c{number}"), &format!("t{number}"), "/in", None))?;
        }
        let uuid = component("random", &redis, "{name: consumerID, value: \"{uuid}/{uuid}\"}");
        let plan = plan.resource(uuid)?.resource(resource::subscription("random", "uuid", "/in", None))?;
        let _host = plan.app(&app).start().await?;
        let mut rows = Tally::default();
        for (number, (row, item, group)) in GROUPS.iter().enumerate() {
            let prefix = if item.contains("{namespace}") { "prod" } else { "" };
            let found = groups(&redis, &format!("{prefix}t{number}")).await;
            rows.check_all([(*row, found, vec![(*group).to_owned()])]);
        }
        let random = groups(&redis, "uuid").await?.concat();
        let parts: Vec<_> =
            random.split('/').map(|part| (part.len(), part.as_bytes().get(14) == Some(&b'4'))).collect();
        rows.check("7 {uuid} is of version 4", parts, vec![(36, true), (36, true)]);
        rows.check("7 each {uuid} is another", random.split_once('/').is_some_and(|(first, next)| first != next), true);
        rows.end()
    })
}

/// Wherever `{namespace}` stands, the broker's topics begin with the namespace, and nobody else's do.
#[test]
fn a_namespace_is_before_the_brokers_topics_alone() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        app.plan("/in", [Reply::word("DROP")]);
        let scoped =
            "{name: unrelated, value: \"{namespace}\"}\n  - {name: publishingScopes, value: \"me=t,dead,bulk\"}";
        let routed = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s}\nspec:\n  pubsubname: bus\n  \
                      topic: t\n  deadLetterTopic: dead\n  routes:\n    rules:\n    - {match: event.topic == \"t\", path: /in}\n";
        let mut plan = test.host("me")?.env("NAMESPACE", "prod").resource(component("bus", &redis, scoped))?;
        plan = plan.resource(routed)?.resource(resource::subscription("bus", "dead", "/dead", None))?;
        let bulk = resource::subscription("bus", "bulk", "/bulk", None);
        let host = plan.resource(bulk)?.app(&app).start().await?;
        let at = host.http()?;
        http::publish_ok(at, "bus/t", "1").await?;
        let entries = json!([{"entryId": "1", "event": "x", "contentType": "text/plain"}]).to_string();
        let headers = [("content-type", "application/json")];
        let path = "/v1.0/publish/bulk/bus/bulk";
        ensure!(http::send(at, "POST", path, &headers, entries.as_bytes()).await?.status == 204);
        let (taken, dead, bulk) =
            (app.wait_for(1, "/in").await?, app.wait_for(1, "/dead").await?, app.wait_for(1, "/bulk").await?);
        let mut rows = Tally::default();
        rows.check("7 the topic of the event", taken[0].event()?["topic"].clone(), json!("t"));
        rows.check("7 of the dead letter", dead[0].event()?["topic"].clone(), json!("t"));
        rows.check("7 of one of many", bulk[0].event()?["topic"].clone(), json!("bulk"));
        let expected = ["prodt", "proddead", "prodbulk"].map(str::to_owned);
        rows.check("7 the topics of the broker", topics(&redis).await?, BTreeSet::from(expected));
        rows.check("7 scopes know the plain topic", http::publish(at, "bus/prodt", "1").await?.status, 403);
        let listed = http::get(at, "/v1.0/metadata").await?.json()?;
        rows.check("7 the metadata API, too", &listed["subscriptions"][0]["topic"], &json!("t"));
        until("everything to be acknowledged", async || (redis.pending("prodt", "me").await.ok()? == 0).then_some(()))
            .await?;
        rows.end()
    })
}
