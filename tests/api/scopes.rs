//! Which app may publish and subscribe where (pubsub-behaviour 8): every row for four apps, each a host of its own.
//!
//! | row | where else |
//! |---|---|
//! | 8.1 another app's component is not found | the scene `scopes` (golden), resources |
//! | 8.2 blanks, more `=` and `;`, protected and allowed topics of one app | the scene `scopes` |
//! | 8.3 the error of a publish, to the field; a subscription that stays listed | the scenes `scopes`, `subscription scopes` |
//! | 8.3 dead letters | delivery/dead_letter, security/scopes |
//! | 8 names in disguise, thousands, over every way in | security/scopes |
//! | 8 the actual topic of a wildcard's message | delivery/wildcards |

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;

use super::tally::Tally;
use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{Test, http, resource, run, until};

const APPS: [&str; 4] = ["app1", "app2", "app3", "other"];

/// What a component says, a topic, and the apps that may have to do with it.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);

const ALL: &str = "app1 app2 app3 other";
const NONE: &str = "";

/// To be read for publishing and for subscribing, which are alike; `Scopes` stands for the item of either.
const CASES: [Case; 18] = [
    ("8.2 no scopes", &[], &[("t1", ALL)]),
    ("8.2 empty items", &[("Scopes", ""), ("allowedTopics", ""), ("protectedTopics", "")], &[("t1", ALL)]),
    (
        "8.2 the first row",
        &[("Scopes", "app1=t1;app2=t2,t3;app3=")],
        &[("t1", "app1 other"), ("t2", "app2 other"), ("t3", "app2 other"), ("t9", "other")],
    ),
    ("8.2 the second row", &[("Scopes", "app1=;app2=t9")], &[("t1", "app3 other"), ("t9", "app2 app3 other")]),
    ("8.2 protected, no scopes", &[("protectedTopics", "t1")], &[("t1", NONE), ("t2", ALL)]),
    (
        "8.2 protected and scopes",
        &[("protectedTopics", "t1,t2"), ("Scopes", "app1=t1;app2=t3")],
        &[("t1", "app1"), ("t2", NONE), ("t3", "app2 app3 other"), ("t4", "app3 other")],
    ),
    ("8.2 allowed, no scopes", &[("allowedTopics", "t1,t2")], &[("t1", ALL), ("t2", ALL), ("t3", NONE)]),
    (
        "8.2 allowed and scopes",
        &[("allowedTopics", "t1,t2"), ("Scopes", "app1=t1,t3")],
        &[("t1", ALL), ("t2", "app2 app3 other"), ("t3", NONE)],
    ),
    (
        "8.2 allowed, protected and scopes",
        &[("allowedTopics", "t1,t2"), ("protectedTopics", "t2,t3"), ("Scopes", "app1=t2;app2=t3")],
        &[("t1", "app3 other"), ("t2", "app1"), ("t3", NONE)],
    ),
    (
        "8.2 blanks are removed",
        &[("Scopes", " app1 = t 1 , t2 ; app2 = t2 ")],
        &[("t1", "app1 app3 other"), ("t2", ALL)],
    ),
    ("8.2 no `=`", &[("Scopes", "app1;app2=t1")], &[("t1", ALL), ("t2", "app1 app3 other")]),
    ("8.2 a second `=`", &[("Scopes", "app1=t1=t2")], &[("t1", ALL), ("t2", "app2 app3 other")]),
    (
        "8.2 an app twice",
        &[("Scopes", "app1=t1;app2=t9;app1=t2")],
        &[("t1", "app1 app3 other"), ("t2", "app1 app3 other")],
    ),
    ("8.2 elements without text", &[("Scopes", ";;app1=t1;;")], &[("t1", ALL), ("t2", "app2 app3 other")]),
    ("8.2 the case of a topic", &[("Scopes", "app1=T1")], &[("t1", "app2 app3 other"), ("T1", ALL)]),
    ("8.2 the case of an app", &[("Scopes", "App1=t1")], &[("t2", ALL)]),
    ("8.2 the case of an item", &[("PROTECTEDtopics", "t1")], &[("t1", NONE), ("t2", ALL)]),
    (
        "8.2 no part of a name",
        &[("Scopes", "app1=t"), ("allowedTopics", "t1,t")],
        &[("t1", "app2 app3 other"), ("t", ALL)],
    ),
];

/// The component of a case, for one of both operations.
fn component(name: &str, scopes: &str, items: &[(&str, &str)]) -> String {
    let items: Vec<_> =
        items.iter().map(|(item, value)| (if *item == "Scopes" { scopes } else { item }, *value)).collect();
    resource::component(name, "pubsub.in-memory", &items)
}

async fn host(test: &Test, app: &App, id: &str) -> Result<Host> {
    let mut plan = test.host(id)?;
    for (number, (_, items, topics)) in CASES.iter().enumerate() {
        plan = plan.resource(component(&format!("pub{number}"), "publishingScopes", items))?;
        plan = plan.resource(component(&format!("sub{number}"), "subscriptionScopes", items))?;
        for (topic, _) in *topics {
            let name = format!("sub{number}");
            plan = plan.resource(resource::subscription(&name, topic, &format!("/{name}/{topic}"), None))?;
        }
    }
    plan.app(app).start().await
}

#[test]
fn each_row_for_each_app() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let hosts = try_join_all(APPS.map(|id| host(test, &app, id))).await?;
        let mut rows = Tally::default();
        publishing(&mut rows, &hosts).await?;
        subscribing(&mut rows, &hosts).await?;
        coming(&mut rows, &hosts, &app).await?;
        rows.end()
    })
}

/// Whom each topic of each case lets publish: by what they are answered.
async fn publishing(rows: &mut Tally, hosts: &[Host]) -> Result<()> {
    for (number, (row, _, topics)) in CASES.iter().enumerate() {
        for (topic, apps) in *topics {
            let mut may = Vec::new();
            for (id, host) in APPS.iter().zip(hosts) {
                match http::publish(host.http()?, &format!("pub{number}/{topic}"), "1").await?.status {
                    204 => may.push(*id),
                    status => ensure!(status == 403, "{row}, {topic}, {id}: {status}"),
                }
            }
            rows.check(&format!("{row}: may publish to {topic}"), may.join(" ").as_str(), apps);
        }
    }
    let entries = json!([{"entryId": "1", "event": "x", "contentType": "text/plain"}]).to_string();
    for path in ["/v1.0/publish/bulk/pub4/t1", "/v1.0-alpha1/publish/bulk/pub4/t1"] {
        let headers = [("content-type", "application/json")];
        let answer = http::send(hosts[0].http()?, "POST", path, &headers, entries.as_bytes()).await?;
        rows.check(&format!("8.3 {path}"), answer.status, 403);
    }
    Ok(())
}

/// Whom each topic of each case lets subscribe: by what is subscribed to. What is not is said, and stays listed.
async fn subscribing(rows: &mut Tally, hosts: &[Host]) -> Result<()> {
    for (id, host) in APPS.iter().zip(hosts) {
        let expected: BTreeSet<String> = subscriptions().filter(|(.., apps)| apps.contains(id)).map(place).collect();
        let denied = subscriptions().count() - expected.len();
        let log = host.log()?;
        let live: BTreeSet<String> =
            log.lines().filter(|line| line.contains(" subscribed ")).filter_map(of_line).collect();
        rows.check(&format!("8.2 {id} has subscribed to"), &live, &expected);
        rows.check(&format!("8.3 {id} is told of"), log.matches("not subscribed").count(), denied);
        let listed = http::get(host.http()?, "/v1.0/metadata").await?.json()?;
        let listed = listed["subscriptions"].as_array().map(Vec::len);
        rows.check(&format!("8.3 {id} has listed"), listed, Some(subscriptions().count()));
    }
    Ok(())
}

/// Nothing comes on a subscription that is not allowed.
async fn coming(rows: &mut Tally, hosts: &[Host], app: &App) -> Result<()> {
    let mut expected = BTreeSet::new();
    for (id, host) in APPS.iter().zip(hosts) {
        for subscription in subscriptions() {
            let may = subscription.2.contains(id);
            let place = place(subscription);
            // Protected topics can be published to by nobody here.
            let published = http::publish(host.http()?, &place, &json!(id).to_string()).await?.status == 204;
            if published && may {
                expected.insert(format!("{id} /{place}"));
            }
        }
    }
    until("what is allowed to come", async || (app.seen().len() >= expected.len()).then_some(())).await?;
    let seen = app.seen();
    let came = seen.iter().map(|seen| {
        let data = seen.data()?;
        Ok(format!("{} {}", data.as_str().unwrap_or_default(), seen.path))
    });
    let came = came.collect::<Result<BTreeSet<_>>>()?;
    rows.check("8.2 what comes and may not", came.difference(&expected).collect::<Vec<_>>(), vec![]);
    rows.check("8.2 what may come and does not", expected.difference(&came).collect::<Vec<_>>(), vec![]);
    Ok(())
}

/// The number of a case, a topic, and who may subscribe to it.
fn subscriptions() -> impl Iterator<Item = (usize, &'static str, Vec<&'static str>)> {
    let of_case = |(number, (_, _, topics)): (usize, &'static Case)| {
        topics.iter().map(move |(topic, apps)| (number, *topic, apps.split_whitespace().collect()))
    };
    CASES.iter().enumerate().flat_map(of_case)
}

fn place((number, topic, _): (usize, &'static str, Vec<&'static str>)) -> String {
    format!("sub{number}/{topic}")
}

/// The component and the topic that a line of the log names.
fn of_line(line: &str) -> Option<String> {
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        rest.split('"').next()
    };
    Some(format!("{}/{}", field("pubsub")?, field("topic")?))
}
