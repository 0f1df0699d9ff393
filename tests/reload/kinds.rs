//! Every kind of broker: its adapter is replaced while messages flow, nothing is lost and no publish fails.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::files::{COMPILED, Folder, TAKEN, edition_of, said, says};
use crate::harness::app::App;
use crate::harness::brokers::{Kind, Server, topic};
use crate::harness::ledger::{Ledger, Rules, Says, Subscriber};
use crate::harness::load::publish_all;
use crate::harness::scale::scaled;
use crate::harness::{resource, run_within, until_within};

/// How long a whole test may take before it counts as stuck.
const RUN_MAX: Duration = Duration::from_secs(240);

/// How long the last message may take to arrive: longer than any lease or rebalance.
const ARRIVAL_MAX: Duration = Duration::from_secs(90);

/// How often the adapter is replaced.
const SWAPS: u64 = 4;

/// Messages in all.
const MESSAGES: u64 = 5_000;

/// Most succeed at once, some want to be asked again.
fn answers(n: u64, arrivals_before: u64) -> Says {
    if n % 50 == 5 && arrivals_before == 0 { Says::Retry } else { Says::Done }
}

/// The component that comes with the host.
fn adapter(name: &str) -> Result<Vec<u8>> {
    let bundled = whimbrel_artifacts::BUNDLED.iter().find(|bundled| bundled.kind == name);
    Ok(bundled.context("the adapter is not built in")?.bytes.to_vec())
}

fn nothing_is_lost(kind: Kind, name: &str) -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let adapter = adapter(name)?;
        let (server, folder) = (Server::shared(kind).await?, Folder::new(test)?);
        let (app_id, topic) = (topic("shop"), topic("orders"));
        server.prepare(&topic).await?;
        let rules =
            Rules { messages_min: scaled(MESSAGES), faults_min: usize::try_from(SWAPS)?, in_flight_median_min: 5 };
        let log = test.folder("app")?.join("log");
        let subscriber = Arc::new(Subscriber::new(&app_id, log, &rules, test.seed, answers)?);
        let app = App::start().await?;
        app.count("/in", &subscriber);
        let plan = test.host(&app_id)?.resource(server.component("bus", &[]))?;
        let plan = plan.resource(resource::subscription("bus", &topic, "/in", None))?.app(&app);
        folder.drop_in(name, &adapter)?;
        let host = folder.of(plan).start().await?;
        let ledger = Arc::new(Ledger::new(test.seed, rules, vec![subscriber], |_| String::new()));
        let publishers = tokio::spawn(publish_all(Arc::clone(&ledger), host.address(), format!("bus/{topic}")));
        for swap in 0..SWAPS {
            let (compiled, taken) = (said(&host, COMPILED), said(&host, TAKEN));
            folder.drop_in(name, &edition_of(adapter.clone(), swap))?;
            // While it compiles, the messages would long be through.
            says(&host, COMPILED, compiled + 1).await?;
            ledger.allow(ledger.messages() * (swap + 1) / (SWAPS + 1));
            says(&host, TAKEN, taken + 1).await?;
            ledger.fault(format!("swap {swap}"));
        }
        ledger.allow(ledger.messages());
        let published = tokio::time::timeout(ARRIVAL_MAX, publishers).await;
        let arrived = until_within(ARRIVAL_MAX, "everything to arrive", async || ledger.quiet().then_some(())).await;
        let report = ledger.close()?;
        published.context("the publishers did not finish")???;
        arrived?;
        ensure!(report.unknown == 0, "{} publishes failed", report.unknown);
        says(&host, "has finished what it had in hand", usize::try_from(SWAPS)?).await?;
        ensure!(said(&host, "was lost") == 0, "an adapter was lost:\n{}", host.log()?);
        Ok(())
    })
}

#[test]
fn over_jetstream() -> Result<()> {
    nothing_is_lost(Kind::Nats, "pubsub.jetstream")
}

#[test]
fn over_rabbitmq() -> Result<()> {
    nothing_is_lost(Kind::RabbitMq, "pubsub.rabbitmq")
}

#[test]
fn over_kafka() -> Result<()> {
    nothing_is_lost(Kind::Kafka, "pubsub.kafka")
}
