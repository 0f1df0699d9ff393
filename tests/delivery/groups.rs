//! The group is the app id: two hosts with one app id share what arrives, two app ids each get everything.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until};

/// Messages of one run.
const MESSAGES: usize = 400;

async fn subscriber(test: &Test, redis: &Redis, app_id: &str) -> Result<(App, Host)> {
    let app = App::start().await?;
    let plan = test.host(app_id)?.resource(resource::redis("bus", redis.address(), &[]))?;
    let host = plan.resource(resource::subscription("bus", "orders", "/in", None))?.app(&app).start().await?;
    Ok((app, host))
}

async fn publish(host: &Host) -> Result<()> {
    for n in 0..MESSAGES {
        http::publish_ok(host.http()?, "bus/orders", &format!(r#"{{"n":{n}}}"#)).await?;
    }
    Ok(())
}

fn numbers(app: &App) -> Result<Vec<u64>> {
    app.seen_on("/in").iter().map(|seen| seen.data()?["n"].as_u64().context("n")).collect()
}

#[test]
fn two_hosts_with_one_app_id_share() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let (first, publisher) = subscriber(test, &redis, "shop").await?;
        let (second, _host) = subscriber(test, &redis, "shop").await?;
        publish(&publisher).await?;
        let all = async || (first.seen().len() + second.seen().len() >= MESSAGES).then_some(());
        until("all messages at one of the two", all).await?;
        let (mine, theirs) = (numbers(&first)?, numbers(&second)?);
        let union: BTreeSet<_> = mine.iter().chain(&theirs).collect();
        assert_eq!((union.len(), mine.len() + theirs.len()), (MESSAGES, MESSAGES), "each exactly once on a quiet run");
        ensure!(mine.len().min(theirs.len()) >= MESSAGES / 10, "{} and {}: no sharing", mine.len(), theirs.len());
        Ok(())
    })
}

#[test]
fn two_app_ids_each_get_everything() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let (first, publisher) = subscriber(test, &redis, "shop").await?;
        let (second, _host) = subscriber(test, &redis, "audit").await?;
        publish(&publisher).await?;
        for app in [&first, &second] {
            app.wait_for(MESSAGES, "/in").await?;
            assert_eq!(numbers(app)?.into_iter().collect::<BTreeSet<_>>().len(), MESSAGES);
        }
        Ok(())
    })
}
