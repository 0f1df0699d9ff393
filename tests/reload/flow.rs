//! The ledger's messages on their way to one topic while things change. Called by the tests here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::ledger::{Ledger, Report, Rules, Says, Subscriber};
use crate::harness::load::publish_all;
use crate::harness::{Test, until, until_within};

/// How long the last message may take to arrive: longer than any lease.
const ARRIVAL_MAX: Duration = Duration::from_secs(90);

/// What must be in flight at half of the changes.
const IN_FLIGHT_MEDIAN_MIN: u64 = 10;

/// See the module.
pub(super) struct Flow {
    pub(super) ledger: Arc<Ledger>,
    pub(super) subscriber: Arc<Subscriber>,
    rounds: u64,
    publishers: Option<JoinHandle<Result<()>>>,
}

impl Flow {
    /// So many messages over so many rounds, told to these paths of the app. All are answered with success.
    pub(super) fn new(test: &Test, app: &App, paths: &[&str], messages: u64, rounds: u64) -> Result<Self> {
        let faults_min = usize::try_from(rounds)?;
        let rules = Rules { messages_min: messages, faults_min, in_flight_median_min: IN_FLIGHT_MEDIAN_MIN };
        let log = test.folder("app")?.join("log");
        let subscriber = Arc::new(Subscriber::new("shop", log, &rules, test.seed, |_, _| Says::Done)?);
        for path in paths {
            app.count(path, &subscriber);
        }
        let ledger = Arc::new(Ledger::new(test.seed, rules, vec![Arc::clone(&subscriber)], |_| String::new()));
        Ok(Self { ledger, subscriber, rounds, publishers: None })
    }

    /// Publishers wait from here on for the first round: to `<pubsub>/<topic>`.
    pub(super) fn begin(&mut self, host: &Host, place: &str) {
        let publishers = publish_all(Arc::clone(&self.ledger), host.address(), place.to_owned());
        self.publishers = Some(tokio::spawn(publishers));
    }

    /// The messages of one round, counted from 0, are on their way from here on.
    pub(super) fn round(&self, round: u64) {
        self.ledger.allow(self.ledger.messages() * (round + 1) / self.rounds);
    }

    /// The same, and some of them are sent.
    pub(super) async fn in_the_middle_of(&self, round: u64) -> Result<()> {
        self.round(round);
        let mark = self.ledger.messages() * round / self.rounds + 5 * IN_FLIGHT_MEDIAN_MIN;
        until("messages to be sent", async || (self.ledger.sent() >= mark).then_some(())).await
    }

    /// The verdict, once everything has arrived.
    pub(super) async fn finish(&mut self) -> Result<Report> {
        self.ledger.allow(self.ledger.messages());
        let publishers = self.publishers.take().context("nobody published")?;
        let published = tokio::time::timeout(ARRIVAL_MAX, publishers).await;
        let quiet = async || self.ledger.quiet().then_some(());
        let arrived = until_within(ARRIVAL_MAX, "everything to arrive", quiet).await;
        let report = self.ledger.close()?;
        published.context("the publishers did not finish")???;
        arrived?;
        Ok(report)
    }
}

/// How many messages came more than once.
pub(super) fn came_twice(report: &Report) -> u64 {
    report.accounts.iter().map(|account| account.duplicates).sum()
}
