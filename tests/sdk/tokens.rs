//! The tokens that go between an app and its host, as the SDKs take them from the environment.

use anyhow::{Result, ensure};
use serde_json::json;

use super::app::{Pair, Sdk, run};
use crate::harness::host::HostPlan;
use crate::harness::{Test, resource};

const TO_HOST: (&str, &str) = ("DAPR_API_TOKEN", "token-of-the-host");
const TO_APP: (&str, &str) = ("APP_API_TOKEN", "token-of-the-app");

#[test]
fn fastapi() -> Result<()> {
    shown_both_ways(Sdk::FastApi)
}

#[test]
fn flask() -> Result<()> {
    shown_both_ways(Sdk::Flask)
}

#[test]
fn javascript() -> Result<()> {
    shown_both_ways(Sdk::JavaScript)
}

/// JavaScript's SDK would wait half a minute for a host that does not know it, and then end.
#[test]
fn without_it_an_app_is_told_its_events_and_publishes_none() -> Result<()> {
    run(async |test| {
        let pair = Pair::start(test, Sdk::FastApi, plan(test)?, &[]).await?;
        let error = pair.publish("orders", "text", json!("stolen"), json!({})).await?;
        ensure!(error["status_code"] == 401, "{error:#}");
        ensure!(pair.seen("orders", "")?.is_empty());
        Ok(())
    })
}

fn shown_both_ways(sdk: Sdk) -> Result<()> {
    run(async |test| {
        let pair = Pair::start(test, sdk, plan(test)?, &[TO_HOST, TO_APP]).await?;
        pair.publish_ok("orders", "text", json!("mine"), json!({})).await?;
        let seen = pair.wait_for(1, "orders", "").await?.remove(0);
        ensure!(seen["headers"]["dapr-api-token"] == TO_APP.1, "{seen:#}");
        Ok(())
    })
}

fn plan(test: &Test) -> Result<HostPlan> {
    let plan = test.host("shop")?.resource(resource::in_memory("bus"))?;
    Ok([TO_HOST, TO_APP].into_iter().fold(plan, |plan, (name, value)| plan.env(name, value)))
}
