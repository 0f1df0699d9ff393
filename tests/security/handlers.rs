//! Handlers that trap, loop, eat memory or flood the log: the event goes where its policy says, and neither the
//! handler's other events nor other subscribers of the host wait for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{Test, http, plugin, resource, run};

/// How long others may take for a publish and its delivery while a handler misbehaves, on a machine under load.
const OTHERS_MAX: Duration = Duration::from_secs(3);

/// A handler with a short deadline and little memory on the topic `t`, an app on `done`, `dead` and `other`.
async fn shop(test: &Test) -> Result<(App, Host)> {
    let app = App::start().await?;
    let limits = "{memory: 16Mi, deadline: 1s, instances: 2}";
    let handler = resource::handler("bad", plugin::misbehaving_handler(), &[("bus", "t", Some("dead"))], limits);
    let mut plan = test.host("me")?.resource(resource::queue("bus"))?.resource(handler)?;
    for topic in ["done", "dead", "other"] {
        plan = plan.resource(resource::subscription("bus", topic, &format!("/{topic}"), None))?;
    }
    let host = plan.app(&app).start().await?;
    Ok((app, host))
}

async fn others_are_served(app: &App, host: &Host) -> Result<()> {
    for n in 0..30 {
        let (start, before) = (Instant::now(), app.seen_on("/other").len());
        http::publish_ok(host.http()?, "bus/other", &n.to_string()).await?;
        app.wait_for(before + 1, "/other").await?;
        ensure!(start.elapsed() < OTHERS_MAX, "another subscriber waited {:?}", start.elapsed());
    }
    Ok(())
}

/// An event that does this ends in the dead-letter topic, or not; others and the handler's next event are served.
fn check(word: &str, dies: bool) -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test).await?;
        http::publish_ok(host.http()?, "bus/t", &json!({"do": word, "text": "x"}).to_string()).await?;
        others_are_served(&app, &host).await?;
        if dies {
            let dead = app.wait_for(1, "/dead").await?;
            assert_eq!(dead[0].data()?["do"], word);
        }
        let next = json!({"do": "publish", "pubsub": "bus", "topic": "done"}).to_string();
        http::publish_ok(host.http()?, "bus/t", &next).await?;
        app.wait_for(1, "/done").await?;
        assert_eq!(app.seen_on("/dead").len(), usize::from(dies));
        let (log, memory) = (host.log()?, host.peak_memory()?);
        assert!(!log.contains("panicked"), "{log}");
        assert!(memory < 1 << 30, "the host took {memory} bytes, with instances of 16 MiB");
        let flood = log.lines().filter(|line| line.contains("flood, line")).count();
        assert!(flood < 5_000, "{flood} lines of a flood were written");
        Ok(())
    })
}

#[test]
fn a_trap() -> Result<()> {
    check("trap", true)
}

#[test]
fn a_loop() -> Result<()> {
    check("loop", true)
}

#[test]
fn memory_eaten() -> Result<()> {
    check("grow", true)
}

#[test]
fn a_log_flood() -> Result<()> {
    check("flood-log", false)
}

#[test]
fn an_error() -> Result<()> {
    check("error", true)
}
