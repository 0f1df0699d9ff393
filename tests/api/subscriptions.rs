//! Who subscribes to what: sections 5.1 to 5.5 and 5.7 of pubsub-behaviour.
//!
//! | rows | proved by |
//! |---|---|
//! | 5.2 the app's answer, as a whole and its fields | scenes `programmatic subscriptions`, `subscribe endpoint answers ...` |
//! | 5.2 batches | `delivery::batches` |
//! | 5.2 the first component comes later | `reload::resources` |
//! | 5.4 v1alpha1, v2alpha1 | scene `v1alpha1`, every other scene |
//! | 5.4 topics that may not be had | scene `subscription scopes` |
//! | 5.4 a rule that does not compile ends the start | scenes `one rule: event.data.n > `, `one rule: nope(1)` |
//! | 5.5 programmatic before declarative | scene `declarative and programmatic for one topic` |
//! | 5.7 the app's port; being ready | `delivery::apps`; every test that publishes at once |
//! | 5.8 | `reload::resources` |
//!
//! Not over HTTP: gRPC (5.3), streams. A subscribe call that fails is tried again: `security::adapters`, unit tests of
//! `pubsub::deliver`.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::better::differs;
use super::rows::{Row, check, post};
use crate::harness::app::{App, Reply};
use crate::harness::host::{Host, HostPlan};
use crate::harness::{Test, http, resource, run, until};

/// How many hosts run at the same time.
const HOSTS_AT_ONCE: usize = 4;

/// What the metadata API lists: component/topic, a letter for how it came to be, where it leads and, behind a `!`, its dead
/// letters.
async fn listed(host: &Host) -> Result<Vec<String>> {
    let metadata = http::get(host.http()?, "/v1.0/metadata").await?.json()?;
    let subscriptions = metadata["subscriptions"].as_array().cloned().unwrap_or_default();
    subscriptions.iter().map(line).collect()
}

fn line(subscription: &Value) -> Result<String> {
    let text = |name: &str| subscription[name].as_str().with_context(|| format!("{name} of {subscription}"));
    let rules = subscription["rules"].as_array().context("rules")?.iter();
    let rules = rules.map(|rule| match rule["match"].as_str() {
        Some(text) => format!(" {text}>{}", rule["path"].as_str().unwrap_or_default()),
        None => format!(" {}", rule["path"].as_str().unwrap_or_default()),
    });
    let rules = rules.collect::<String>();
    let dead = Some(text("deadLetterTopic")?).filter(|topic| !topic.is_empty()).map(|topic| format!(" !{topic}"));
    let kind = text("type")?.chars().next().unwrap_or_default();
    Ok(format!("{}/{} {kind}{rules}{}", text("pubsubname")?, text("topic")?, dead.unwrap_or_default()))
}

async fn check_listed(host: &Host, section: &str, expected: &[&str]) -> Result<()> {
    let found = listed(host).await?;
    ensure!(found == expected, "row {section}: listed is {found:#?}, not {expected:#?}");
    Ok(())
}

fn to(section: &'static str, topic: &str) -> Row {
    post(section, format!("/v1.0/publish/bus/{topic}")).json("{}")
}

/// A publish that comes to a path and nowhere else.
fn comes(section: &'static str, topic: &str, path: &'static str) -> Row {
    to(section, topic).comes(path, json!({"topic": topic}))
}

fn plan(test: &Test, app: &App) -> Result<HostPlan> {
    Ok(test.host("me")?.resource(resource::in_memory("bus"))?.app(app))
}

#[test]
fn the_app_is_asked_once_where_there_is_something_to_subscribe_to() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.subscribe(r#"[{"pubsubname":"bus","topic":"own","route":"/own"}]"#);
        let host = plan(test, &app)?.env("APP_API_TOKEN", "app-token").start().await?;
        check(&host, &app, &[comes("5.2", "own", "/own").under("dapr-api-token", Some("app-token"))]).await?;
        let asked = app.asked();
        ensure!(asked.len() == 1, "row 5.2: asked {} times", asked.len());
        ensure!(asked[0].method == "GET" && asked[0].body.is_empty(), "row 5.2: {:?}", asked[0]);
        let headers = [("content-type", "application/json"), ("dapr-app-id", "me"), ("dapr-api-token", "app-token")];
        for (name, value) in headers {
            ensure!(asked[0].headers.get(name).is_some_and(|found| found == value), "row 5.2: {name}: {:?}", asked[0]);
        }
        Ok(())
    })
}

#[test]
fn the_app_is_not_asked_without_a_component_or_where_that_is_switched_off() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.subscribe(r#"[{"pubsubname":"bus","topic":"own","route":"/own"}]"#);
        let host = test.host("me")?.app(&app).start().await?;
        check_listed(&host, "5.2", &[]).await?;
        let declared = resource::subscription("bus", "t", "/in", None);
        let plan = plan(test, &app)?.resource(declared)?.flag("--disable-init-endpoints", "config,subscribe");
        let host = plan.start().await?;
        ensure!(host.log()?.contains("Skipping programmatic subscription loading"), "row 5.2: {}", host.log()?);
        check_listed(&host, "5.2", &["bus/t D /in"]).await?;
        check(&host, &app, &[comes("5.2", "t", "/in"), to("5.2", "own")]).await?;
        ensure!(app.asked().is_empty(), "row 5.2: {:?}", app.asked());
        Ok(())
    })
}

/// What an app answers to the question, how often it is asked, and what is subscribed to.
struct Answer(&'static str, Vec<Reply>, usize, &'static [&'static str]);

const BUILT_IN: &str = "DaprBuiltInInitializationRetries";
const OWN: &str = r#"[{"pubsubname":"bus","topic":"own","route":"/own"}]"#;
const BOTH: &[&str] = &["bus/t D /in", "bus/own P /own"];
const DECLARED: &[&str] = &["bus/t D /in"];

/// A list with one subscription that has so many rules.
fn ruled(count: usize) -> String {
    let rules = vec![json!({"match": "event.type == 'x'", "path": "/x"}); count];
    let routes = json!({"rules": rules, "default": "/own"});
    json!([{"pubsubname": "bus", "topic": "own", "routes": routes}]).to_string()
}

#[test]
fn what_the_app_answers() -> Result<()> {
    differs("5.6 number of rules");
    let with = |status: u16, body: &str| Reply::With(status, body.to_owned());
    let list = || with(200, OWN);
    let rule = r#"[{"pubsubname":"bus","topic":"own","routes":{"rules":[{"match":"event.","path":"/own"}]}}]"#;
    let answers = [
        Answer("a list", vec![list()], 1, BOTH),
        Answer("an empty list", vec![with(200, "[]")], 1, DECLARED),
        Answer("nothing", vec![with(200, "")], 1, DECLARED),
        Answer("no JSON", vec![with(200, "hello")], 1, &[]),
        Answer("an object", vec![with(200, "{}")], 1, &[]),
        Answer("a wrong type", vec![with(200, r#"[{"pubsubname":"bus","topic":5,"route":"/own"}]"#)], 1, &[]),
        Answer("a rule that does not compile", vec![with(200, rule)], 1, &[]),
        Answer("more rules than are taken", vec![with(200, &ruled(257))], 1, &[]),
        Answer("not found", vec![with(404, OWN)], 1, DECLARED),
        Answer("no content", vec![with(204, "")], 1, DECLARED),
        Answer("another status", vec![with(201, OWN)], 1, DECLARED),
        Answer("a failure is not asked again", vec![with(500, OWN), list()], 1, DECLARED),
        Answer("a connection that breaks is", vec![Reply::Cut, Reply::Cut, Reply::Cut, list()], 4, BOTH),
        Answer("but not for ever", vec![Reply::Cut], 4, &[]),
    ];
    run(async |test| {
        let all = futures::stream::iter(answers).map(|answer| check_answer(test, answer, ""));
        all.buffer_unordered(HOSTS_AT_ONCE).try_collect::<()>().await
    })
}

/// The question is asked again as `DaprBuiltInInitializationRetries` says, three times at least (10.2).
#[test]
fn the_app_is_asked_as_the_policy_says() -> Result<()> {
    const FIVE: &str = "{duration: 1ms, maxRetries: 5}";
    const NONE: &str = "{duration: 1ms, maxRetries: 0}";
    const ENDLESS: &str = "{policy: exponential, maxInterval: 2ms, maxRetries: -1}";
    let list = || Reply::With(200, OWN.to_owned());
    let cuts = |times: usize| std::iter::repeat_n(Reply::Cut, times).chain([list()]).collect::<Vec<_>>();
    let answers = [
        (FIVE, Answer("five retries", cuts(5), 6, BOTH)),
        (FIVE, Answer("and no more", vec![Reply::Cut], 6, &[])),
        (NONE, Answer("none are three", cuts(3), 4, BOTH)),
        (NONE, Answer("and no more than three", vec![Reply::Cut], 4, &[])),
        (ENDLESS, Answer("without a number", cuts(30), 31, BOTH)),
    ];
    run(async |test| {
        let all = futures::stream::iter(answers).map(|(policy, answer)| check_answer(test, answer, policy));
        all.buffer_unordered(HOSTS_AT_ONCE).try_collect::<()>().await
    })
}

/// The question is asked as the `policy` says, if there is one.
async fn check_answer(test: &Test, Answer(name, replies, times, expected): Answer, policy: &str) -> Result<()> {
    let app = App::start().await?;
    app.plan("/dapr/subscribe", replies);
    let mut plan = plan(test, &app)?.resource(resource::subscription("bus", "t", "/in", None))?;
    if !policy.is_empty() {
        plan = plan.resource(resource::inbound("bus", &format!("{{retries: {{{BUILT_IN}: {policy}}}}}"), "{}"))?;
    }
    let host = plan.start().await?;
    let row = |topic: &str, path: &'static str| {
        let live = expected.iter().any(|line| line.contains(&format!("/{topic} ")));
        if live { comes("5.2", topic, path) } else { to("5.2", topic) }
    };
    check(&host, &app, &[row("t", "/in"), row("own", "/own")]).await.context(name)?;
    check_listed(&host, "5.2", expected).await.context(name)?;
    ensure!(app.asked().len() == times, "row 5.2: {name}: asked {} times", app.asked().len());
    Ok(())
}

/// Items of one answer.
fn items() -> Value {
    let gold = json!([{"match": "event.type == 'gold'", "path": "/gold"}]);
    json!([
        {"pubsubname": "bus", "topic": "all", "route": "/route", "routes": {"rules": gold, "default": "/default"}},
        {"pubsubname": "bus", "topic": "old", "route": "/route", "routes": {"rules": gold}},
        {"PubSubName": "bus", "TOPIC": "case", "Routes": {"Rules": [{"Match": "", "Path": "/any"}], "Default": "/d"},
         "DeadLetterTopic": "dead", "colour": "red"},
        {"pubsubname": "bus", "topic": "bare", "route": "bare"},
        {"pubsubname": "bus", "topic": "nowhere"},
        {"pubsubname": "bus", "topic": "empty", "route": "", "routes": {"rules": [], "default": ""}},
        {"pubsubname": "bus", "topic": "twice", "route": "/first", "deadLetterTopic": "dead"},
        {"pubsubname": "none", "topic": "t", "route": "/none"},
        {"pubsubname": "bus", "topic": "declared", "route": "/own"},
        {"pubsubname": "bus", "topic": "drops", "route": "/drops", "deadLetterTopic": "dead"},
        {"pubsubname": "bus", "topic": "dead", "route": "/dead", "metadata": null, "bulkSubscribe": null},
        {"pubsubname": "bus", "topic": "twice", "route": "/second"},
        {"pubsubname": "bus", "topic": "batch", "route": "/batch",
         "bulkSubscribe": {"enabled": true, "maxMessagesCount": 5, "maxAwaitDurationMs": 10}},
    ])
}

#[test]
fn what_the_app_asks_for() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.subscribe(&items().to_string());
        app.plan("/drops", [Reply::word("DROP")]);
        app.plan("/batch", [Reply::Each("SUCCESS".into())]);
        let mut plan = plan(test, &app)?;
        for topic in ["before", "declared", "after"] {
            plan = plan.resource(resource::subscription("bus", topic, &format!("/{topic}"), Some("dead")))?;
        }
        let host = plan.start().await?;
        let gold = |topic: &str| {
            let row = post("5.2", format!("/v1.0/publish/bus/{topic}?metadata.cloudevent.type=gold")).json("{}");
            row.comes("/gold", json!({"topic": topic}))
        };
        let rows = [
            gold("all"),
            comes("5.2", "all", "/default"),
            gold("old"),
            comes("5.2", "old", "/route"),
            comes("5.2", "case", "/any"),
            comes("5.2", "bare", "/bare"),
            to("5.2", "nowhere"),
            to("5.2", "empty"),
            comes("5.2", "drops", "/drops").comes("/dead", json!({"topic": "drops"})),
            to("5.2", "batch").comes("/batch", json!({"topic": "batch", "type": "com.dapr.event.sent.bulk"})),
            post("5.2", "/v1.0/publish/none/t").json("{}").refused(404, "ERR_PUBSUB_NOT_FOUND"),
            comes("5.5.2", "declared", "/own"),
            comes("5.5.2", "before", "/before"),
            comes("5.5.3", "twice", "/second"),
        ];
        check(&host, &app, &rows).await?;
        let expected = [
            "bus/before D /before !dead",
            "bus/declared P /own",
            "bus/after D /after !dead",
            "bus/all P event.type == 'gold'>/gold /default",
            "bus/old P event.type == 'gold'>/gold /route",
            "bus/case P /any /d !dead",
            "bus/bare P bare",
            "bus/twice P /second",
            "none/t P /none",
            "bus/drops P /drops !dead",
            "bus/dead P /dead",
            "bus/batch P /batch",
        ];
        check_listed(&host, "5.5", &expected).await
    })
}

/// Documents that are written oddly, in one file.
const ODD: &str = r#"
---
---
APIVersion: dapr.io/v1alpha1
Kind: Subscription
Metadata: {Name: keys, namespace: elsewhere}
Spec: {PubSubName: bus, TOPIC: keys, ROUTE: /keys, default: /stray, DeadLetterTopic: dead}
Scopes: [you, me]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: twice-the-key}
spec:
  pubsubname: bus
  topic: 5
  topic: 5
  colour: red
  routes: {default: /five, default: /five}
scopes: []
---
apiVersion: dapr.io/v2alpha1
kind: subscription
metadata: {name: kind}
spec: {pubsubname: bus, topic: kind, routes: {default: /kind}}
---
apiVersion: dapr.io/V2alpha1
kind: Subscription
metadata: {name: version}
spec: {pubsubname: bus, topic: version, routes: {default: /version}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: other}
spec: {pubsubname: bus, topic: other, routes: {default: /other}}
scopes: [Me, you]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orphan}
spec: {pubsubname: none, topic: t, routes: {default: /orphan}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: nowhere}
spec: {pubsubname: bus, topic: nowhere, deadLetterTopic: dead, route: /not-of-this-version}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: no-route}
spec: {pubsubname: bus, topic: no-route, routes: {default: /not-of-this-version}}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: dead}
spec: {pubsubname: bus, topic: dead, route: dead}
"#;

#[test]
fn what_is_declared() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let host = plan(test, &app)?.resource(ODD)?.start().await?;
        let rows = [
            comes("5.4", "keys", "/keys"),
            comes("5.4", "5", "/five"),
            to("5.4", "kind"),
            to("5.4", "version"),
            to("5.4", "other"),
            post("5.4", "/v1.0/publish/none/t").json("{}").refused(404, "ERR_PUBSUB_NOT_FOUND"),
            to("5.4", "nowhere").comes("/dead", json!({"topic": "nowhere"})),
            to("5.4", "no-route"),
        ];
        check(&host, &app, &rows).await?;
        let expected = [
            "bus/keys D /keys !dead",
            "bus/5 D /five",
            "none/t D /orphan",
            "bus/nowhere D !dead",
            "bus/no-route D",
            "bus/dead D dead",
        ];
        check_listed(&host, "5.4", &expected).await
    })
}

/// A document of either version.
fn document(version: &str, name: &str, topic: &str, path: &str) -> String {
    let route = if version == "v1alpha1" { format!("route: {path}") } else { format!("routes: {{default: {path}}}") };
    format!(
        "---\napiVersion: dapr.io/{version}\nkind: Subscription\nmetadata: {{name: {name}}}\n\
         spec: {{pubsubname: bus, topic: {topic}, {route}}}\n"
    )
}

/// The order is that of folders, files and documents, whatever their version; one name is one subscription.
#[test]
fn of_several_declarations_the_first_wins_and_of_one_name_the_last() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let (one, two) = ("v1alpha1", "v2alpha1");
        let plan = plan(test, &app)?;
        plan.file("b.yaml", document(one, "b1", "versions", "/first") + &document(two, "b2", "documents", "/first"))?;
        plan.file("c.yaml", document(two, "c1", "versions", "/second") + &document(one, "c2", "files", "/first"))?;
        plan.file("d.yaml", document(two, "d1", "files", "/second") + &document(one, "b2", "moved", "/moved"))?;
        plan.file("e.yaml", document(two, "e1", "documents", "/third") + &document(one, "e2", "documents", "/fourth"))?;
        let folder = test.folder("more")?;
        let more = document(two, "a1", "files", "/later") + &document(one, "a2", "folders", "/folders");
        std::fs::write(folder.join("a.yaml"), more)?;
        let host = plan.flag("--resources-path", &folder.display().to_string()).start().await?;
        let rows = [
            comes("5.5.1", "versions", "/first"),
            comes("5.5.1", "files", "/first"),
            comes("5.5.1", "documents", "/third"),
            comes("5.5.1", "folders", "/folders"),
            comes("5.4", "moved", "/moved"),
        ];
        check(&host, &app, &rows).await?;
        let expected = [
            "bus/versions D /first",
            "bus/files D /first",
            "bus/moved D /moved",
            "bus/documents D /third",
            "bus/folders D /folders",
        ];
        check_listed(&host, "5.5.1", &expected).await
    })
}

#[test]
fn without_an_app_subscriptions_are_listed_and_publishing_works() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.start().await?;
        check(&host, &app, &[to("5.4", "t"), to("5.4", "u")]).await?;
        check_listed(&host, "5.4", DECLARED).await
    })
}

/// The app is asked once it is well for the first time, and not again.
#[test]
fn an_app_that_falls_ill_is_not_asked_again() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.subscribe(OWN);
        let ill = || app.plan("/healthz", [Reply::status(500)]);
        let well = || app.plan("/healthz", [Reply::status(200)]);
        ill();
        let plan = plan(test, &app)?.flag("--app-health-probe-interval", "1").flag("--app-health-threshold", "1");
        let plan = plan
            .flag("--app-health-probe-timeout", "500")
            .flag("--app-health-check-path=/healthz", "--enable-app-health-check");
        let host = plan.start().await?;
        ensure!(app.asked().is_empty() && listed(&host).await?.is_empty(), "row 5.7: asked while it was ill");
        well();
        until("the app's subscription", async || (listed(&host).await.ok()? == ["bus/own P /own"]).then_some(()))
            .await?;
        delivered(&host, &app, 1).await?;
        for times in [2, 3] {
            ill();
            state(&host, "unhealthy").await?;
            check_listed(&host, "5.7", &["bus/own P /own"]).await?;
            well();
            state(&host, "healthy").await?;
            delivered(&host, &app, times).await?;
        }
        ensure!(app.asked().len() == 1, "row 5.7: asked {} times", app.asked().len());
        Ok(())
    })
}

/// Publishes until one more has come: what comes before the subscription does is nobody's.
async fn delivered(host: &Host, app: &App, times: usize) -> Result<()> {
    let number = times.to_string();
    until(&format!("delivery {times}"), async || {
        http::publish_ok(host.http().ok()?, "bus/own", &number).await.ok()?;
        app.seen_on("/own").iter().any(|seen| seen.data().is_ok_and(|data| data == times)).then_some(())
    })
    .await
}

async fn state(host: &Host, wanted: &str) -> Result<()> {
    until(&format!("the app to be {wanted}"), async || {
        let metadata = http::get(host.http().ok()?, "/v1.0/metadata").await.ok()?.json().ok()?;
        (metadata["extended"]["appHealth"] == wanted).then_some(())
    })
    .await
}
