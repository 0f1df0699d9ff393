//! Resources are rewritten every second, by the clock and whatever the host is doing just then, while messages flow over
//! two brokers: one that is changed, and one that is not. Nothing is lost on either, and on the second no publish fails.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{MissedTickBehavior, interval};

use super::files::said;
use super::flow::{Flow, came_twice};
use super::resources::{Scene, TAKEN};
use crate::harness::app::App;
use crate::harness::host::HostPlan;
use crate::harness::redis::Redis;
use crate::harness::scale::scaled;
use crate::harness::{http, resource, run_within, until_within};

/// How long the whole may take before it counts as stuck, at scale 1.
const RUN_MAX: Duration = Duration::from_secs(240);

/// How often something is changed, at scale 1.
const ROUNDS: u64 = 15;

/// Messages to each broker in a round. Somewhat more than the app handles in a second.
const MESSAGES: u64 = 200;

/// How long the app takes for each.
const SLOW: Duration = Duration::from_millis(5);

/// How long until what was written last is what runs: longer than several changes that wait for one another.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(60);

#[test]
fn resources_change_every_second() -> Result<()> {
    let rounds = scaled(ROUNDS);
    let run_max = RUN_MAX + Duration::from_secs(2 * (rounds - ROUNDS));
    run_within(run_max, async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let mut calm = Flow::new(test, &app, &["/calm"], MESSAGES * rounds, rounds)?;
        let mut busy = Flow::new(test, &app, &["/busy", "/elsewhere"], MESSAGES * rounds, rounds)?;
        calm.subscriber.slow(SLOW);
        busy.subscriber.slow(SLOW);
        // A lease that no pause of the machine outlives: nothing comes twice for that.
        let lease = [("processingTimeout", "60s")];
        let declared = [
            resource::redis("calm", redis.address(), &lease),
            resource::subscription("calm", "orders", "/calm", None),
            busy_broker(&redis, 0),
            busy_subscription(0),
        ];
        let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
        let slow = |plan: HostPlan| plan.flag("--app-max-concurrency", "2");
        let scene = Scene::with(test, app, &declared, slow).await?;
        calm.begin(&scene.host, "calm/orders");
        busy.begin(&scene.host, "busy/bills");
        // The clock is what is under test: a round's messages come half a second before its change.
        let mut clock = interval(Duration::from_millis(500));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0..rounds {
            clock.tick().await;
            calm.round(round);
            busy.round(round);
            clock.tick().await;
            change(&scene, &redis, round)?;
            for flow in [&calm, &busy] {
                flow.ledger.fault(format!("round {round}"));
            }
        }
        caught_up(&scene).await?;
        let report = calm.finish().await?;
        let (failed, twice) = (report.unknown, came_twice(&report));
        ensure!(failed == 0 && twice == 0, "beside the changes {failed} publishes failed, {twice} messages came twice");
        busy.finish().await?;
        ensure!(scene.subscribed("orders")? == 1, "it has a gap:\n{}", scene.host.log()?);
        ensure!(said(&scene.host, "was lost") == 0, "an adapter was lost:\n{}", scene.host.log()?);
        // Of what came too fast the last counts; most of it does not come too fast.
        let taken = said(&scene.host, TAKEN) as u64;
        ensure!(taken > rounds / 3, "only {taken} changes of {rounds} were taken:\n{}", scene.host.log()?);
        Ok(())
    })
}

/// What is written in a round, each file in one move; nobody waits for it to be taken.
fn change(scene: &Scene, redis: &Redis, round: u64) -> Result<()> {
    let cycle = round / 5;
    match round % 5 {
        0 => scene.drop_in("02.yaml", &busy_broker(redis, cycle + 1)),
        1 => scene.drop_in("03.yaml", &busy_subscription(cycle + 1)),
        2 => {
            let policy = format!("{{retries: {{r: {{policy: constant, duration: 1s, maxRetries: {}}}}}}}", cycle + 1);
            scene.drop_in("policies.yaml", &resource::inbound("busy", &policy, "{retry: r}"))
        }
        3 => scene.drop_in("zz.yaml", &resource::queue("busy")),
        _ => {
            std::fs::remove_file(scene.file("zz.yaml")?)?;
            scene.drop_in("second.yaml", &resource::queue(&format!("second-{cycle}")))
        }
    }
}

/// Other settings of the connection each time.
fn busy_broker(redis: &Redis, edition: u64) -> String {
    let seconds = format!("{}s", 60 + edition);
    resource::redis("busy", redis.address(), &[("processingTimeout", &seconds)])
}

/// Another route and other metadata each time.
fn busy_subscription(edition: u64) -> String {
    let path = if edition.is_multiple_of(2) { "/busy" } else { "/elsewhere" };
    let yaml = resource::subscription("busy", "bills", path, None);
    yaml.replace("  routes:", &format!("  metadata: {{maxUnsettled: \"{}\"}}\n  routes:", 100 + edition))
}

/// What is declared last is what runs in the end.
async fn caught_up(scene: &Scene) -> Result<()> {
    if scene.file("zz.yaml")?.exists() {
        std::fs::remove_file(scene.file("zz.yaml")?)?;
    }
    scene.drop_in("last.yaml", &resource::subscription("calm", "last", "/last", None))?;
    let there = async || scene.topics().await.ok()?.contains(&"last".to_owned()).then_some(());
    until_within(CAUGHT_UP_MAX, "the last change to be taken", there).await?;
    http::publish_ok(scene.host.http()?, "calm/last", "{}").await?;
    scene.app.wait_for(1, "/last").await?;
    Ok(())
}
