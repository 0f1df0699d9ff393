//! Subscriptions to many topics at once, where the broker can: the event names the topic it came from, and whether the app
//! may have it is a matter of that topic.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::harness::app::{App, Reply};
use crate::harness::brokers::{Kind, Server, topic};
use crate::harness::{http, resource, run, until};

/// With a broker, a pattern and topics that it takes in: what comes says where it comes from, wrapped or raw.
fn names_its_topic(
    kind: Option<Kind>,
    more: &'static [(&'static str, &'static str)],
    star: &'static str,
) -> Result<()> {
    run(async move |test| {
        // Of brokers that all tests share, a corner of its own.
        let base = topic("orders").replace('-', "");
        let broker = match kind {
            Some(kind) => Server::shared(kind).await?.component("bus", more),
            None => resource::component("bus", "pubsub.in-memory", more),
        };
        let pattern = format!("{base}.{star}");
        let app = App::start().await?;
        let raw = "  metadata: {rawPayload: \"true\"}\n";
        let subscriber = test.host("me")?.resource(&broker)?;
        let subscriber = subscriber.resource(resource::subscription("bus", &pattern, "/in", Some("dead")))?;
        let raw_app = App::start().await?;
        let other = test.host("other")?.resource(&broker)?;
        let other = other.resource(resource::subscription("bus", &pattern, "/raw", None) + raw)?;
        let (host, other) = (subscriber.app(&app).start().await?, other.app(&raw_app).start().await?);
        for at in [host.http()?, other.http()?] {
            for name in ["a", "b"] {
                http::publish_ok(at, &format!("bus/{base}.{name}"), "{}").await?;
            }
            if kind.is_some() {
                break;
            }
        }
        for (app, path) in [(&app, "/in"), (&raw_app, "/raw")] {
            let seen = app.wait_for(2, path).await?;
            let named = seen.iter().map(|seen| Ok(seen.event()?["topic"].as_str().context("topic")?.to_owned()));
            let mut named = named.collect::<Result<Vec<_>>>()?;
            named.sort();
            ensure!(named == [format!("{base}.a"), format!("{base}.b")], "{path}: {named:?}");
        }
        Ok(())
    })
}

#[test]
fn in_memory_as_daprs() -> Result<()> {
    names_its_topic(None, &[], "*")
}

#[test]
fn in_memory_as_a_queue() -> Result<()> {
    names_its_topic(None, &[("mode", "queue")], "*")
}

#[test]
fn jetstream() -> Result<()> {
    names_its_topic(Some(Kind::Nats), &[("streamCreate", "auto")], ">")
}

/// A pattern grants what it matches, but no protected topic; a grant of topics grants just these, whatever the pattern.
fn check_scopes(scopes: &[(&str, &str)], comes: &[&str]) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let broker = resource::component("bus", "pubsub.in-memory", &[&[("mode", "queue")], scopes].concat());
        let plan =
            test.host("me")?.resource(broker)?.resource(resource::subscription("bus", "o*", "/in", Some("dead")))?;
        let host = plan.resource(resource::subscription("bus", "dead", "/dead", None))?.app(&app).start().await?;
        for name in ["o-one", "o-two", "o-secret", "o-last"] {
            http::publish_ok(host.http()?, &format!("bus/{name}"), &format!("{name:?}")).await?;
        }
        let refused = 4 - comes.len();
        until("the rest to be refused", async || {
            (host.log().ok()?.matches("may not have messages of this topic").count() >= refused).then_some(())
        })
        .await?;
        let seen = app.wait_for(comes.len(), "/in").await?;
        let seen = seen.iter().map(|seen| Ok(seen.data()?.as_str().context("a name")?.to_owned()));
        // Several are under way at once, so they have no order.
        let seen = seen.collect::<Result<BTreeSet<_>>>()?;
        ensure!(seen == comes.iter().map(|name| (*name).to_owned()).collect());
        ensure!(app.seen_on("/dead").is_empty(), "what the app may not have went to its dead letters");
        Ok(())
    })
}

#[test]
fn without_scopes_all_of_it_comes() -> Result<()> {
    check_scopes(&[], &["o-one", "o-two", "o-secret", "o-last"])
}

#[test]
fn a_protected_topic_does_not_come_by_a_pattern() -> Result<()> {
    let scopes = [("protectedTopics", "o-secret"), ("publishingScopes", "me=o-one,o-two,o-secret,o-last,dead")];
    check_scopes(&scopes, &["o-one", "o-two", "o-last"])
}

#[test]
fn a_granted_pattern_does_not_grant_a_protected_topic() -> Result<()> {
    let scopes = [
        ("protectedTopics", "o-secret"),
        ("subscriptionScopes", "me=o*,dead"),
        ("publishingScopes", "me=o-one,o-two,o-secret,o-last,dead"),
    ];
    check_scopes(&scopes, &["o-one", "o-two", "o-last"])
}

#[test]
fn a_protected_topic_that_is_granted_by_name_comes() -> Result<()> {
    let scopes = [
        ("protectedTopics", "o-secret"),
        ("subscriptionScopes", "me=o*,o-secret,dead"),
        ("publishingScopes", "me=o-one,o-two,o-secret,o-last,dead"),
    ];
    check_scopes(&scopes, &["o-one", "o-two", "o-secret", "o-last"])
}

/// What fails goes to the dead-letter topic under its own name, with the topic it came from in the event.
#[test]
fn a_dead_letter_keeps_the_topic_it_came_from() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::word("DROP")]);
        let plan = test.host("me")?.resource(resource::queue("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "o*", "/in", Some("dead")))?;
        let host = plan.resource(resource::subscription("bus", "dead", "/dead", None))?.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/o-one", "{}").await?;
        ensure!(app.wait_for(1, "/dead").await?[0].event()?["topic"] == "o-one");
        Ok(())
    })
}
