//! Apps of three SDKs, each beside a host of its own, on one Redis: all are told what each of them publishes.

use anyhow::Result;
use serde_json::{Value, json};

use super::app::{Pair, Sdk, run};
use crate::harness::redis::Redis;
use crate::harness::resource;

#[test]
fn all_are_told_what_each_publishes() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let start = async |app_id: &str, sdk| {
            let plan = test.host(app_id)?.resource(resource::redis("bus", redis.address(), &[]))?;
            Pair::start(test, sdk, plan, &[]).await
        };
        let apps = tokio::try_join!(
            start("till", Sdk::JavaScript),
            start("kitchen", Sdk::FastApi),
            start("office", Sdk::Flask)
        )?;
        let apps = [&apps.0, &apps.1, &apps.2];
        for (n, from) in apps.into_iter().enumerate() {
            let data = json!({"key": format!("{:?}", from.sdk), "price": 1.5, "text": "Käse"});
            from.publish_ok("orders", "json", data.clone(), json!({})).await?;
            for to in apps {
                let seen: Vec<Value> = to.wait_for(n + 1, "orders", "").await?;
                assert_eq!(seen[n]["data"], data, "from {:?} to {:?}", from.sdk, to.sdk);
            }
        }
        Ok(())
    })
}
