//! Several hosts of one app id over every kind of broker: the work is shared, what a killed host held goes to the
//! others, nothing is lost however often one is killed, and where a key has an order it keeps it while hosts come and go.
//!
//! The hosts stand beside a broker that all tests share; each test has a topic and an app id that nobody else has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::harness::app::{App, Reply};
use crate::harness::brokers::{Kind, Server, topic};
use crate::harness::host::Host;
use crate::harness::ledger::{Ledger, Rules, Says, Subscriber};
use crate::harness::load::publish_all;
use crate::harness::scale::{scaled, scaled_time};
use crate::harness::{Test, http, resource, run_within, until_within};

/// How long a whole test may take before it counts as stuck; longer at a larger scale.
const RUN_MAX: Duration = Duration::from_secs(600);

/// How long until work is shared, or until the last message has arrived: longer than any lease or rebalance.
const ARRIVAL_MAX: Duration = Duration::from_secs(300);

/// How long a killed host's messages may stay away: the longest lease of these components, and time to notice.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(3 + 20);

/// Messages of a quiet run.
const MESSAGES: u64 = 400;

/// How often a host is killed over one kind of broker; over all four kinds more than fifty times.
const KILLS: u64 = 13;

/// Messages published while hosts are killed.
const MESSAGES_UNDER_FIRE: u64 = 6_500;

/// Keys whose order is watched.
const KEYS: u64 = 20;

/// How often a host joins and leaves meanwhile.
const VISITS: u64 = 3;

/// Of a subscription: one message at a time, for what is under way at the same time has no order.
const ONE_AT_A_TIME: &str = "  metadata:\n    maxUnsettled: \"1\"\n";

/// Hosts of one app id, each with an app of its own.
struct Team {
    server: &'static Server,
    app_id: String,
    topic: String,
    /// More of every subscription, as it stands in the YAML.
    more: &'static str,
    apps: Vec<App>,
    hosts: Vec<Host>,
}

impl Team {
    async fn new(kind: Kind) -> Result<Self> {
        let server = Server::shared(kind).await?;
        let (app_id, topic) = (topic("shop"), topic("orders"));
        server.prepare(&topic).await?;
        Ok(Self { server, app_id, topic, more: "", apps: vec![], hosts: vec![] })
    }

    /// One more host, which delivers to one more app.
    async fn join(&mut self, test: &Test, app: App) -> Result<()> {
        let plan = test.host(&self.app_id)?.resource(self.server.component("bus", &[]))?;
        let plan = plan.resource(resource::subscription("bus", &self.topic, "/in", None) + self.more)?;
        self.hosts.push(plan.app(&app).start().await?);
        self.apps.push(app);
        Ok(())
    }

    async fn publish(&self, number: u64) -> Result<()> {
        let host = self.hosts.first().context("no host")?;
        let place = format!("bus/{}?metadata.partitionKey=key-{number}", self.topic);
        http::publish_ok(host.http()?, &place, &number.to_string()).await
    }

    /// What each app has seen of the numbers from `first` on.
    fn seen(&self, first: u64) -> Vec<Vec<u64>> {
        let numbers = |app: &App| {
            let data = app.seen_on("/in").into_iter().filter_map(|seen| seen.data().ok()?.as_u64());
            data.filter(|number| *number >= first).collect()
        };
        self.apps.iter().map(numbers).collect()
    }

    /// Publishes until every app has seen something, for a member that joins does not get its share at once; and until
    /// all of that has arrived. Returns the first number that was not used.
    async fn settle(&self) -> Result<u64> {
        let mut next = 0;
        let shared = async || {
            self.publish(next).await.ok()?;
            next += 1;
            self.seen(0).iter().all(|seen| !seen.is_empty()).then_some(())
        };
        until_within(ARRIVAL_MAX, "every host to get a share", shared).await?;
        self.arrived(0, next).await?;
        Ok(next)
    }

    /// Waits until every number of a range has arrived at one of the apps.
    async fn arrived(&self, first: u64, end: u64) -> Result<()> {
        let expected: BTreeSet<u64> = (first..end).collect();
        let what = format!("the numbers {first} to {end} to arrive");
        let all = async || (self.seen(first).concat().into_iter().collect::<BTreeSet<_>>() == expected).then_some(());
        until_within(ARRIVAL_MAX, &what, all).await
    }
}

fn the_work_is_shared(kind: Kind, hosts: usize) -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let mut team = Team::new(kind).await?;
        for _ in 0..hosts {
            team.join(test, App::start().await?).await?;
        }
        let first = team.settle().await?;
        for number in first..first + MESSAGES {
            team.publish(number).await?;
        }
        team.arrived(first, first + MESSAGES).await?;
        let counts: Vec<usize> = team.seen(first).iter().map(Vec::len).collect();
        let (sum, least) = (counts.iter().sum::<usize>() as u64, counts.iter().min().copied().unwrap_or(0) as u64);
        ensure!(sum == MESSAGES, "{counts:?}: each message exactly once on a quiet run");
        ensure!(least >= MESSAGES / 10, "{counts:?}: no sharing");
        Ok(())
    })
}

fn a_killed_hosts_messages_go_to_the_others(kind: Kind) -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let mut team = Team::new(kind).await?;
        for _ in 0..2 {
            team.join(test, App::start().await?).await?;
        }
        let first = team.settle().await?;
        let [_, held] = team.apps.as_slice() else { anyhow::bail!("two apps") };
        held.plan("/in", [Reply::Never]);
        for number in first..first + 100 {
            team.publish(number).await?;
        }
        team.arrived(first, first + 100).await?;
        let [healthy, held] = &team.seen(first)[..] else { anyhow::bail!("two apps") };
        ensure!(!held.is_empty(), "the host that is to die holds nothing, the other has {}", healthy.len());
        eprintln!("{held:?} were held");
        let (died, doomed) = (Instant::now(), team.hosts.last_mut().context("no host")?);
        doomed.kill().await?;
        let all: BTreeSet<u64> = (first..first + 100).collect();
        let taken = async || {
            let healthy = team.seen(first).into_iter().next()?;
            (healthy.into_iter().collect::<BTreeSet<_>>() == all).then_some(())
        };
        until_within(TAKEN_OVER_MAX, "what the killed host held to arrive at the other", taken).await?;
        eprintln!("taken over after {:?}", died.elapsed());
        Ok(())
    })
}

/// Most succeed, some want to be asked again: by whichever host has them then.
fn says(n: u64, arrivals_before: u64) -> Says {
    if n % 20 == 5 && arrivals_before == 0 { Says::Retry } else { Says::Done }
}

fn nothing_is_lost_when_hosts_are_killed(kind: Kind) -> Result<()> {
    run_within(scaled_time(RUN_MAX), async |test| {
        let kills = scaled(KILLS);
        let share = MESSAGES_UNDER_FIRE / KILLS;
        let faults_min = usize::try_from(kills)?;
        let rules = Rules { messages_min: share * (kills + 1), faults_min, in_flight_median_min: 10 };
        let mut team = Team::new(kind).await?;
        let log = test.folder("apps")?.join("log");
        let subscriber = Arc::new(Subscriber::new(&team.app_id, log, &rules, test.seed, says)?);
        for _ in 0..3 {
            let app = App::start().await?;
            app.count("/in", &subscriber);
            team.join(test, app).await?;
        }
        let ledger = Arc::new(Ledger::new(test.seed, rules, vec![subscriber], |_| String::new()));
        let publisher = team.hosts.first().context("no host")?.address();
        let place = format!("bus/{}", team.topic);
        let publishers = tokio::spawn(publish_all(Arc::clone(&ledger), publisher, place));
        let mut random = test.random();
        for kill in 0..kills {
            ledger.allow(share * (kill + 1));
            let mark = share * kill + random.u64(50..share * 3 / 4);
            let what = format!("{mark} messages to be sent");
            until_within(ARRIVAL_MAX, &what, async || (ledger.sent() >= mark).then_some(())).await?;
            let victim = random.usize(..team.hosts.len());
            ledger.fault(format!("kill -9 of host {victim}, number {kill}"));
            let host = team.hosts.get_mut(victim).context("no such host")?;
            host.kill().await?;
            host.start_again(|plan| plan).await?;
        }
        ledger.allow(ledger.messages());
        let published = tokio::time::timeout(ARRIVAL_MAX, publishers).await;
        let arrived = until_within(ARRIVAL_MAX, "everything to arrive", async || ledger.quiet().then_some(())).await;
        // The ledger's verdict says more than what was waited for in vain; but that is a failure too.
        ledger.close()?;
        published.context("the publishers did not finish")???;
        arrived
    })
}

/// Publishes to every key in turn, one message after the other, until it is told to stop. Returns how many each key got.
async fn publish_in_order(host: SocketAddr, topic: String, stop: Arc<AtomicBool>) -> Result<u64> {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(n);
        }
        for key in 0..KEYS {
            let place = format!("bus/{topic}?metadata.partitionKey=key-{key}");
            http::publish_ok(host, &place, &format!(r#"{{"key":{key},"n":{n}}}"#)).await?;
        }
    }
    Ok(0)
}

/// The numbers of each key, as the apps saw them for the first time.
fn first_sights(apps: &[App]) -> Result<BTreeMap<u64, Vec<u64>>> {
    let mut all: Vec<_> = apps.iter().flat_map(|app| app.seen_on("/in")).collect();
    all.sort_by_key(|seen| seen.at);
    let (mut sights, mut known) = (BTreeMap::<u64, Vec<u64>>::new(), BTreeSet::new());
    for seen in all {
        let data = seen.data()?;
        let (key, n) = (data["key"].as_u64().context("key")?, data["n"].as_u64().context("n")?);
        if known.insert((key, n)) {
            sights.entry(key).or_default().push(n);
        }
    }
    Ok(sights)
}

fn a_key_keeps_its_order(kind: Kind) -> Result<()> {
    run_within(scaled_time(RUN_MAX), async |test| {
        let mut team = Team { more: ONE_AT_A_TIME, ..Team::new(kind).await? };
        team.join(test, App::start().await?).await?;
        let (host, stop) = (team.hosts.first().context("no host")?.http()?, Arc::new(AtomicBool::new(false)));
        let publisher = tokio::spawn(publish_in_order(host, team.topic.clone(), Arc::clone(&stop)));
        for _ in 0..scaled(VISITS) {
            team.join(test, App::start().await?).await?;
            let guest = team.apps.last().context("no app")?;
            let shared = async || (!guest.seen_on("/in").is_empty()).then_some(());
            until_within(ARRIVAL_MAX, "the new host to get a share", shared).await?;
            team.hosts.pop().context("no host")?.stop().await?;
        }
        stop.store(true, Ordering::Relaxed);
        let published = publisher.await??;
        let expected: BTreeMap<u64, Vec<u64>> = (0..KEYS).map(|key| (key, (0..published).collect())).collect();
        let count = async || {
            let sights = first_sights(&team.apps).ok()?;
            (sights.values().map(Vec::len).sum::<usize>() as u64 >= KEYS * published).then_some(())
        };
        until_within(ARRIVAL_MAX, "everything to arrive", count).await?;
        assert_eq!(first_sights(&team.apps)?, expected);
        Ok(())
    })
}

/// The same promises over one kind of broker.
macro_rules! over {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn two_hosts_share_the_work() -> Result<()> {
                the_work_is_shared($kind, 2)
            }

            #[test]
            fn three_hosts_share_the_work() -> Result<()> {
                the_work_is_shared($kind, 3)
            }

            #[test]
            fn a_killed_hosts_messages_go_to_the_others() -> Result<()> {
                super::a_killed_hosts_messages_go_to_the_others($kind)
            }

            #[test]
            fn nothing_is_lost_when_hosts_are_killed() -> Result<()> {
                super::nothing_is_lost_when_hosts_are_killed($kind)
            }
        }
    };
}

over!(redis, Kind::Redis);
over!(jetstream, Kind::Nats);
over!(rabbitmq, Kind::RabbitMq);
over!(kafka, Kind::Kafka);

#[test]
fn a_key_keeps_its_order_over_kafka_while_hosts_come_and_go() -> Result<()> {
    a_key_keeps_its_order(Kind::Kafka)
}
