//! Resources change again and again while messages flow over Redis: nothing is lost, no publish fails, and a subscription
//! that is not concerned does not notice.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::files::said;
use super::flow::{Flow, came_twice};
use super::resources::Scene;
use crate::harness::app::App;
use crate::harness::ledger::Report;
use crate::harness::redis::Redis;
use crate::harness::scale::scaled;
use crate::harness::{Test, resource, run_within};

/// How long a whole test may take before it counts as stuck.
const RUN_MAX: Duration = Duration::from_secs(240);

/// How often something is changed.
const ROUNDS: u64 = 12;

/// Messages in all.
const MESSAGES: u64 = 8_000;

/// A scene with the ledger's messages on their way to `bus/orders`.
struct Load {
    scene: Scene,
    redis: Redis,
    flow: Flow,
}

impl Load {
    async fn new(test: &Test) -> Result<Self> {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let mut flow = Flow::new(test, &app, &["/in", "/other-in"], scaled(MESSAGES), ROUNDS)?;
        let broker = resource::redis("bus", redis.address(), &[]);
        // As slow as apps are, so that messages are in flight whenever something changes.
        let slow = |plan: crate::harness::host::HostPlan| plan.flag("--app-max-concurrency", "2");
        let scene = Scene::with(test, app, &[&broker, &orders("/in", 100)], slow).await?;
        flow.begin(&scene.host, "bus/orders");
        Ok(Self { scene, redis, flow })
    }

    /// The verdict, once everything has arrived.
    async fn finish(mut self) -> Result<(Scene, Report)> {
        let report = self.flow.finish().await?;
        ensure!(report.unknown == 0, "{} publishes failed", report.unknown);
        ensure!(said(&self.scene.host, "was lost") == 0, "an adapter was lost:\n{}", self.scene.host.log()?);
        Ok((self.scene, report))
    }
}

fn orders(path: &str, unsettled: u32) -> String {
    let yaml = resource::subscription("bus", "orders", path, None);
    yaml.replace("  routes:", &format!("  metadata: {{maxUnsettled: \"{unsettled}\"}}\n  routes:"))
}

/// Other subscriptions, other components, policies, routes and scopes: the feed of this one stays.
#[test]
fn what_is_not_touched_notices_nothing() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let mut load = Load::new(test).await?;
        let mut refused = 0;
        for round in 0..ROUNDS {
            load.flow.round(round);
            let odd = round / 6 % 2 == 1;
            let scene = &mut load.scene;
            match round % 6 {
                0 => scene.put("other.yaml", &resource::subscription("bus", "other", "/other", None)).await?,
                1 => {
                    let policy = format!("{{retries: {{r: {{policy: constant, duration: 1s, maxRetries: {round}}}}}}}");
                    scene.put("policies.yaml", &resource::inbound("bus", &policy, "{retry: r}")).await?;
                }
                2 => scene.put("01.yaml", &orders(if odd { "/in" } else { "/other-in" }, 100)).await?,
                3 => scene.put("second.yaml", &resource::queue("second")).await?,
                4 => {
                    refused += 1;
                    scene.drop_in("zz.yaml", &resource::queue("bus"))?;
                    scene.refused(refused, "duplicate definition").await?;
                    std::fs::remove_file(scene.file("zz.yaml")?)?;
                    scene.back(refused).await?;
                }
                _ => {
                    std::fs::remove_file(scene.file("other.yaml")?)?;
                    scene.remove("second.yaml").await?;
                }
            }
            load.flow.ledger.fault(format!("round {round}"));
        }
        let (scene, report) = load.finish().await?;
        let twice = came_twice(&report);
        ensure!(twice == 0, "{twice} messages came twice");
        ensure!(scene.subscribed("orders")? == 1, "it has a gap:\n{}", scene.host.log()?);
        Ok(())
    })
}

/// The component is opened anew, the subscription subscribes again, goes and comes again.
#[test]
fn what_is_touched_loses_nothing() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let mut load = Load::new(test).await?;
        for round in 0..ROUNDS {
            load.flow.round(round);
            let seconds = format!("{}s", 2 + (round / 3) % 2);
            let scene = &mut load.scene;
            match round % 3 {
                0 => {
                    let other = [("processingTimeout", seconds.as_str()), ("redeliverInterval", "400ms")];
                    scene.put("00.yaml", &resource::redis("bus", load.redis.address(), &other)).await?;
                }
                1 => scene.put("01.yaml", &orders("/in", 50 + u32::try_from(round)?)).await?,
                _ => {
                    scene.remove("01.yaml").await?;
                    ensure!(scene.topics().await?.is_empty());
                    scene.put("01.yaml", &orders("/in", 100)).await?;
                }
            }
            load.flow.ledger.fault(format!("round {round}"));
        }
        let (scene, _) = load.finish().await?;
        let opened = said(&scene.host, "component loaded");
        ensure!(opened >= 4, "the component was opened {opened} times only:\n{}", scene.host.log()?);
        Ok(())
    })
}
