//! More publishes than the broker takes, or than it takes just now. Whoever is refused is told so in time, and when to come
//! again; memory has a bound; health is answered all the while; and once the broker goes on, publishes succeed, and all
//! that was answered with success arrives.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::ledger::{Ledger, Rules, Says, Subscriber};
use crate::harness::redis::Redis;
use crate::harness::scale::scaled;
use crate::harness::{http, resource, run, run_within, until, until_within};

/// How long a whole test may take before it counts as stuck.
const RUN_MAX: Duration = Duration::from_secs(240);

/// Connections of the flood, each with as many publishers as the host lets speak at once on one (HTTP/2).
const CONNECTIONS: usize = 96;
const PUBLISHERS: usize = 256;

/// Messages of the flood, at scale 1: each publisher has more than one.
const MESSAGES: u64 = 30_000;

/// Bodies of the flood of large ones, and their bytes: more together than the host holds of all bodies.
const LARGE: usize = 600;
const LARGE_BYTES: usize = 1 << 20;

/// How long a publish may take to be answered: the host's 30 s, and what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_secs(50);

/// How long the last message may take to arrive once the broker goes on.
const ARRIVAL_MAX: Duration = Duration::from_secs(90);

/// What the host may have in memory at its worst moment of the flood of small messages, bytes. It starts with about 60 MB.
const SMALL_MEMORY_MAX: u64 = 400 << 20;

/// The same of large ones: what all bodies may hold (256 MiB), each once more as the event that is made of it, and once
/// more in the adapter.
const LARGE_MEMORY_MAX: u64 = 900 << 20;

/// What the host answered to publishes.
#[derive(Debug, Default)]
struct Tally {
    taken: AtomicU64,
    /// 503 or 429, with when to come again.
    refused: AtomicU64,
    /// 500: the broker did not answer in time, or was not reached.
    failed: AtomicU64,
    /// Publishers of the flood that have had an answer.
    heard: AtomicU64,
    slowest_millis: AtomicU64,
    strange: Mutex<Vec<String>>,
}

impl Tally {
    /// One answer: how long to stay away, or nothing if it was a success.
    fn count(&self, status: u16, retry_after: Option<&str>, body: &str, took: Duration) -> Option<Duration> {
        self.slowest_millis.fetch_max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let asked = retry_after.and_then(|seconds| seconds.parse().ok()).filter(|seconds| (1..=60).contains(seconds));
        match (status, asked) {
            (204, _) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            (429 | 503, Some(seconds)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Some(Duration::from_secs(seconds));
            }
            (500, None) if body.contains("may be stored or not") || body.contains("may be sent again") => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.strange(format!("{status}, retry-after {retry_after:?}: {body}")),
        }
        Some(Duration::from_secs(1))
    }

    fn strange(&self, what: String) {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Nothing strange was answered, and everything in time.
    fn sound(&self) -> Result<()> {
        let strange = self.strange.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(strange.is_empty(), "{} strange answers, among them {:?}", strange.len(), strange.first());
        let slowest = Duration::from_millis(self.slowest_millis.load(Ordering::Relaxed));
        ensure!(slowest < ANSWER_MAX, "a publish was answered after {slowest:?}");
        eprintln!("{self:?}");
        Ok(())
    }
}

/// Asks for the host's health without a pause until it is dropped; each answer is counted, whatever it is.
struct Asking {
    answers: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Error>,
}

impl Asking {
    fn begin(host: SocketAddr) -> Self {
        let answers = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            loop {
                match http::get(host, "/v1.0/healthz").await {
                    Ok(_) => counted.fetch_add(1, Ordering::Relaxed),
                    Err(error) => return error,
                };
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { answers, task }
    }

    /// It has been answered each time, and is answered still.
    async fn still_answered(&self) -> Result<()> {
        let before = self.answers.load(Ordering::Relaxed);
        let more =
            async || (self.task.is_finished() || self.answers.load(Ordering::Relaxed) > before + 1).then_some(());
        until_within(2 * ANSWER_MAX, "health to be answered", more).await?;
        ensure!(!self.task.is_finished(), "health was not answered");
        Ok(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Connection = Client<HttpConnector, Full<Bytes>>;

/// Publishes the ledger's messages, each again until it is taken, as often and as late as the host says.
fn flood(host: SocketAddr, place: &str, ledger: &Arc<Ledger>, tally: &Arc<Tally>) -> JoinSet<Result<()>> {
    let mut publishers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let connection: Connection = Client::builder(TokioExecutor::new()).http2_only(true).build(HttpConnector::new());
        for _ in 0..PUBLISHERS {
            let (connection, ledger, tally) = (connection.clone(), Arc::clone(ledger), Arc::clone(tally));
            let to = format!("http://{host}/v1.0/publish/{place}");
            publishers.spawn(async move {
                let mut hears = 1;
                while let Some(n) = ledger.next().await {
                    while let Some(wait) = publish(&connection, &to, &ledger, &tally, n).await? {
                        ledger.doubt();
                        tally.heard.fetch_add(std::mem::take(&mut hears), Ordering::Relaxed);
                        // As it was told.
                        tokio::time::sleep(wait).await;
                    }
                    ledger.confirm(n);
                }
                Ok(())
            });
        }
    }
    publishers
}

async fn publish(
    connection: &Connection,
    to: &str,
    ledger: &Ledger,
    tally: &Tally,
    n: u64,
) -> Result<Option<Duration>> {
    let to = format!("{to}?metadata.cloudevent.id={}", ledger.event_id(n));
    ask(connection, &to, ledger.send(n).into(), tally).await
}

/// One publish, counted.
async fn ask(connection: &Connection, to: &str, body: Bytes, tally: &Tally) -> Result<Option<Duration>> {
    let request = Request::post(to).header("content-type", "application/json").body(Full::from(body))?;
    let begun = Instant::now();
    let answer = tokio::time::timeout(2 * ANSWER_MAX, connection.request(request)).await.context("no answer")??;
    let took = begun.elapsed();
    let (head, body) = answer.into_parts();
    let after = head.headers.get("retry-after").and_then(|value| value.to_str().ok());
    let body = body.collect().await?.to_bytes();
    Ok(tally.count(head.status.as_u16(), after, &String::from_utf8_lossy(&body), took))
}

/// Four and twenty thousand publish at the same time to a broker that has stopped.
#[test]
fn a_broker_that_stops_under_a_flood() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let rules = Rules { messages_min: scaled(MESSAGES), faults_min: 1, in_flight_median_min: 1000 };
        let log = test.folder("app")?.join("log");
        let subscriber = Arc::new(Subscriber::new("shop", log, &rules, test.seed, |_, _| Says::Done)?);
        app.count("/in", &subscriber);
        let ledger = Arc::new(Ledger::new(test.seed, rules, vec![subscriber], |_| String::new()));
        let plan = test.host("shop")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let subscription = resource::subscription("bus", "orders", "/in", None);
        let host = plan.resource(subscription)?.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/warm", "{}").await?;
        let (asking, tally) = (Asking::begin(host.http()?), Arc::<Tally>::default());
        redis.pause()?;
        ledger.allow(ledger.messages());
        let mut publishers = flood(host.http()?, "bus/orders", &ledger, &tally);
        let everybody = (CONNECTIONS * PUBLISHERS) as u64;
        let answered = async || (tally.heard.load(Ordering::Relaxed) >= everybody).then_some(());
        let waited = until_within(2 * ANSWER_MAX, "everybody to be answered once", answered).await;
        waited.with_context(|| format!("{tally:?}"))?;
        let refused = tally.refused.load(Ordering::Relaxed);
        ensure!(refused >= 1000 && tally.taken.load(Ordering::Relaxed) == 0, "while it stopped: {tally:?}");
        asking.still_answered().await?;
        ledger.fault("the broker goes on");
        redis.resume()?;
        let taken = async {
            while let Some(ended) = publishers.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(ARRIVAL_MAX, taken).await.context("not everything was taken in the end")??;
        until_within(ARRIVAL_MAX, "everything to arrive", async || ledger.quiet().then_some(())).await?;
        ledger.close()?;
        asking.still_answered().await?;
        tally.sound()?;
        memory_within(&host, SMALL_MEMORY_MAX)
    })
}

fn memory_within(host: &Host, bytes_max: u64) -> Result<()> {
    let memory = host.peak_memory()?;
    eprintln!("{} MiB at the worst moment", memory >> 20);
    ensure!(memory < bytes_max, "{memory} bytes in memory, of {bytes_max}");
    Ok(())
}

/// Large bodies, more together than the host holds.
#[test]
fn large_bodies_for_a_broker_that_has_stopped() -> Result<()> {
    run_within(RUN_MAX, async |test| {
        let redis = Redis::start(test).await?;
        let host = test.host("shop")?.resource(resource::redis("bus", redis.address(), &[]))?.start().await?;
        http::publish_ok(host.http()?, "bus/warm", "{}").await?;
        let (asking, tally) = (Asking::begin(host.http()?), Arc::<Tally>::default());
        redis.pause()?;
        let body = Bytes::from(format!("\"{}\"", "x".repeat(LARGE_BYTES)));
        let connections: Connection = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let to = format!("http://{}/v1.0/publish/bus/orders", host.http()?);
        let publishes = (0..LARGE).map(|_| ask(&connections, &to, body.clone(), &tally));
        for answered in futures::future::join_all(publishes).await {
            answered?;
        }
        asking.still_answered().await?;
        let refused = tally.refused.load(Ordering::Relaxed);
        ensure!(refused >= 100 && tally.taken.load(Ordering::Relaxed) == 0, "while it stopped: {tally:?}");
        redis.resume()?;
        let again = async || ask(&connections, &to, body.clone(), &tally).await.ok()?.is_none().then_some(());
        until_within(ARRIVAL_MAX, "a publish to succeed", again).await?;
        tally.sound()?;
        memory_within(&host, LARGE_MEMORY_MAX)
    })
}

/// A queue in memory that nobody empties: it refuses what it has no room for, and keeps what it has taken.
#[test]
fn a_full_queue_refuses_and_keeps() -> Result<()> {
    const ROOM: usize = 200;
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500)]);
        let room = ROOM.to_string();
        let broker = resource::component("bus", "pubsub.in-memory", &[("mode", "queue"), ("maxQueueMessages", &room)]);
        let again = "{retries: {again: {policy: constant, duration: 200ms, maxRetries: -1}}}";
        let plan = test.host("shop")?.resource(broker)?.resource(resource::inbound("bus", again, "{retry: again}"))?;
        let subscription = resource::subscription("bus", "orders", "/in", None);
        let host = plan.resource(subscription)?.app(&app).start().await?;
        let (asking, tally) = (Asking::begin(host.http()?), Tally::default());
        let connections: Connection = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let to = format!("http://{}/v1.0/publish/bus/orders", host.http()?);
        let one = |n: usize| ask(&connections, &to, n.to_string().into(), &tally);
        let publishes = (0..3 * ROOM).map(|n| async move { (n, one(n).await) });
        let mut taken = vec![];
        for (n, answered) in futures::future::join_all(publishes).await {
            taken.extend(answered?.is_none().then_some(n));
        }
        ensure!(taken.len() == ROOM && tally.failed.load(Ordering::Relaxed) == 0, "{tally:?}");
        asking.still_answered().await?;
        app.take_seen();
        app.plan("/in", [Reply::ok()]);
        let arrived = || -> Result<BTreeSet<usize>> {
            let data = app.seen_on("/in").into_iter().map(|seen| Ok(seen.data()?.to_string().parse()?));
            data.collect()
        };
        let all = async || arrived().ok()?.is_superset(&taken.iter().copied().collect()).then_some(());
        until("all that was taken to arrive", all).await?;
        let again = async || ask(&connections, &to, "1".into(), &tally).await.ok()?.is_none().then_some(());
        until("a publish to succeed", again).await?;
        tally.sound()
    })
}
