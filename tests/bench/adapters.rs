//! Publishing and consuming through each adapter: the component, the same code natively, and the usual Rust client of
//! that broker, against one real broker. Each measurement is a process of its own, pinned to one core; the broker has the
//! other.

mod broker;
mod clients;
mod consume;
pub mod native;
mod publish;
pub mod sandbox;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clients::Client;
use publish::Publisher;
use tokio::task::LocalSet;
use whimbrel::pubsub::Broker;
use whimbrel::wasm::Loader;

use crate::{cpu, load, table};

/// One message.
const PAYLOAD_BYTES: usize = 1024;

/// How long one measurement publishes.
const RUN: Duration = Duration::from_secs(2);

const ROUNDS: usize = 3;

/// Messages in one call where an app publishes in bulk.
const BULK_MESSAGES: usize = 100;

/// Messages that are drained.
const DRAIN_MESSAGES: usize = 50_000;

/// Messages a second where latency is looked at.
const HOP_RATE: u32 = 1000;

/// The sides: a name, the child's word for it, and the most messages in one call to the adapter.
const SIDES: [(&str, &str, usize); 3] =
    [("component", "component", 512), ("the same code natively", "native", 512), ("client crate", "crate", 1)];

/// What is measured. Only redis has the sides without batches: they show what coalescing is worth.
const UNBATCHED: [(&str, &str, usize); 2] =
    [("component, batches of 1", "component", 1), ("natively, batches of 1", "native", 1)];

/// A broker to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Jetstream,
    Rabbitmq,
    Kafka,
}

/// All, by the name of their section.
pub const KINDS: [(&str, Kind, &str); 4] = [
    ("redis", Kind::Redis, "redis crate"),
    ("jetstream", Kind::Jetstream, "async-nats"),
    ("rabbitmq", Kind::Rabbitmq, "lapin"),
    ("kafka", Kind::Kafka, "rdkafka"),
];

impl Kind {
    fn of(name: &str) -> Self {
        KINDS.iter().find(|(known, ..)| *known == name).unwrap().1
    }

    /// The adapter's settings for a broker at an address.
    fn properties(self, address: &str) -> Vec<(String, String)> {
        let pairs: &[(&str, String)] = match self {
            Self::Redis => &[("redisHost", address.to_owned()), ("maxLenApprox", "200000".to_owned())],
            Self::Jetstream => &[("natsURL", format!("nats://{address}"))],
            Self::Rabbitmq => &[("connectionString", format!("amqp://guest:guest@{address}"))],
            Self::Kafka => &[
                ("brokers", address.to_owned()),
                ("authType", "none".to_owned()),
                ("disableTls", "true".to_owned()),
                ("initialOffset", "oldest".to_owned()),
            ],
        };
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }
}

struct Figures {
    cpu: f64,
    per_second: f64,
    p50: f64,
    p99: f64,
}

/// One measurement: what a child does.
struct Work<'a> {
    what: &'a str,
    side: &'a str,
    publishers: usize,
    batch: usize,
}

pub fn measure(name: &str) {
    let (_, kind, client) = *KINDS.iter().find(|(known, ..)| *known == name).unwrap();
    let head =
        ["publishers", "side", "CPU a message", "messages/s", "p50", "p99", "CPU, to natively", "CPU, to the crate"];
    table::head(
        &format!("{name}: publish, 1 KiB, the publisher's process pinned to one core (client crate: {client})"),
        &head,
    );
    for publishers in [1, 16, 64, 256] {
        let unbatched: &[_] = if kind == Kind::Redis { &UNBATCHED } else { &[] };
        let sides: Vec<_> = SIDES.iter().chain(unbatched).copied().collect();
        rows(&publishers.to_string(), &sides, name, &|side, batch| Work { what: "publish", side, publishers, batch });
    }
    let bulk = format!("1, {BULK_MESSAGES} in a call");
    rows(&bulk, &SIDES, name, &|side, batch| Work { what: "bulk", side, publishers: 1, batch });
    let head =
        ["consume", "side", "CPU a message", "messages/s", "p50", "p99", "CPU, to natively", "CPU, to the crate"];
    table::head(&format!("{name}: consume and acknowledge, 256 unsettled at most"), &head);
    rows("a backlog", &SIDES, name, &|side, batch| Work { what: "drain", side, publishers: 1, batch });
    let hop = format!("{HOP_RATE} a second, published by the same side");
    rows(&hop, &SIDES, name, &|side, batch| Work { what: "hop", side, publishers: 1, batch });
}

fn rows<'a>(label: &str, sides: &[(&'a str, &'a str, usize)], name: &str, work: &dyn Fn(&'a str, usize) -> Work<'a>) {
    // A fresh one for each row: what the last left behind is no part of it.
    let server = broker::Server::start(name);
    let mut rounds: Vec<Vec<Figures>> = sides.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (side, (_, word, batch)) in sides.iter().enumerate() {
            rounds[side].push(start(name, &server, &work(word, *batch)));
        }
    }
    let of = |side: usize, value: &dyn Fn(&Figures) -> f64| table::median(rounds[side].iter().map(value).collect());
    for (side, (title, _, batch)) in sides.iter().enumerate() {
        let cpu = of(side, &|figures| figures.cpu);
        let natively =
            sides.iter().position(|(_, word, other)| *word == "native" && (other == batch || *batch > 1 && *other > 1));
        let to = |side: Option<usize>| {
            side.map_or_else(|| "–".to_owned(), |side| format!("{:.2}", cpu / of(side, &|figures| figures.cpu)))
        };
        let micros =
            |value: f64| if value > 0.0 { table::micros(Duration::from_secs_f64(value)) } else { "–".to_owned() };
        table::row(&[
            label.to_owned(),
            (*title).to_owned(),
            micros(cpu),
            format!("{:.0}", of(side, &|figures| figures.per_second)),
            micros(of(side, &|figures| figures.p50)),
            micros(of(side, &|figures| figures.p99)),
            to(natively),
            to(Some(2)),
        ]);
    }
}

fn start(name: &str, server: &broker::Server, work: &Work<'_>) -> Figures {
    let topic = server.topic();
    let numbers = [work.publishers.to_string(), work.batch.to_string()];
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(std::env::current_exe().unwrap())
        .args(["adapter", name, &server.address, &topic, work.what, work.side])
        .args(numbers)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = || format!("{} {}: {text}{}", work.what, work.side, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", words());
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [cpu, per_second, p50, p99] = numbers.as_slice() else { panic!("{}", words()) };
    Figures { cpu: *cpu, per_second: *per_second, p50: *p50, p99: *p99 }
}

/// The child's side: does its work and prints its figures.
pub fn child(arguments: &[String]) {
    let [name, address, topic, what, side, publishers, batch] = arguments else { panic!("{arguments:?}") };
    let place = Place { kind: Kind::of(name), name, address, topic };
    let (publishers, batch) = (publishers.parse().unwrap(), batch.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let figures = runtime.block_on(local.run_until(async {
        match what.as_str() {
            "publish" => place.publish(side, publishers, batch, 1).await,
            "bulk" => place.publish(side, publishers, batch, BULK_MESSAGES).await,
            "drain" => place.drain(side).await,
            _ => Box::pin(place.hop(side)).await,
        }
    }));
    println!("{} {} {} {}", figures.cpu, figures.per_second, figures.p50, figures.p99);
    // What the clients' own threads still do is of no interest.
    std::process::exit(0);
}

/// Where a child works.
struct Place<'a> {
    kind: Kind,
    name: &'a str,
    address: &'a str,
    topic: &'a str,
}

impl Place<'_> {
    async fn publisher(&self, side: &str, batch: usize) -> (Publisher, Option<Loader>) {
        let properties = self.kind.properties(self.address);
        match side {
            "crate" => (Publisher::Client(Box::new(Client::connect(self.kind, self.address).await)), None),
            "native" => {
                let (broker, queue) = Broker::new(Arc::new(sandbox::component()));
                match self.kind {
                    Kind::Redis => serve::<whimbrel_redis::Redis>(&properties, queue, batch).await,
                    Kind::Jetstream => serve::<whimbrel_jetstream::JetStream>(&properties, queue, batch).await,
                    Kind::Rabbitmq => serve::<whimbrel_rabbitmq::Rabbitmq>(&properties, queue, batch).await,
                    Kind::Kafka => serve::<whimbrel_kafka::Kafka>(&properties, queue, batch).await,
                }
                (Publisher::Broker(broker), None)
            }
            _ => {
                let (loader, broker) = sandbox::open(&format!("pubsub.{}", self.name), &properties, batch).await;
                (Publisher::Broker(broker), Some(loader))
            }
        }
    }

    async fn publish(&self, side: &str, publishers: usize, batch: usize, copies: usize) -> Figures {
        let (publisher, _loader) = self.publisher(side, batch).await;
        publish::run(&publisher, self.topic, publishers, copies, RUN / 4).await;
        let (before, started) = (cpu::own(), Instant::now());
        let latencies = publish::run(&publisher, self.topic, publishers, copies, RUN).await;
        let messages = (latencies.len() * copies) as f64;
        figures(before, started, messages, &latencies)
    }

    /// Empties a backlog that somebody else has published.
    async fn drain(&self, side: &str) -> Figures {
        let client = Client::connect(self.kind, self.address).await;
        let data = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
        consume::before_the_backlog(self, side).await;
        for _ in 0..DRAIN_MESSAGES / BULK_MESSAGES {
            client.publish(self.topic, &data, BULK_MESSAGES).await;
        }
        drop(client);
        let (mut left, mut begin) = (DRAIN_MESSAGES, None);
        consume::run(
            self,
            side,
            || {},
            |_| {
                begin.get_or_insert_with(|| (cpu::own(), Instant::now()));
                left -= 1;
                left > 0
            },
        )
        .await;
        let (before, started) = begin.unwrap();
        figures(before, started, DRAIN_MESSAGES as f64, &[])
    }

    /// From publish to receipt, at a steady rate.
    async fn hop(&self, side: &str) -> Figures {
        let count = HOP_RATE * u32::try_from(RUN.as_secs()).unwrap();
        let begun = Instant::now();
        let (ready, waiting) = tokio::sync::oneshot::channel();
        let publishing = async {
            let (publisher, _loader) = self.publisher(side, 512).await;
            waiting.await.unwrap();
            let mut next = tokio::time::Instant::now();
            for _ in 0..count {
                tokio::time::sleep_until(next).await;
                next += Duration::from_secs(1) / HOP_RATE;
                let mut data = vec![b'x'; PAYLOAD_BYTES];
                data[..8].copy_from_slice(&(begun.elapsed().as_nanos() as u64).to_le_bytes());
                publisher.publish(self.topic, &data.into(), 1).await;
            }
        };
        let (mut latencies, mut begin) = (Vec::new(), None);
        let receiving = consume::run(
            self,
            side,
            || {
                begin = Some((cpu::own(), Instant::now()));
                ready.send(()).unwrap();
            },
            |data| {
                let sent = Duration::from_nanos(u64::from_le_bytes(data[..8].try_into().unwrap()));
                latencies.push(begun.elapsed().saturating_sub(sent));
                latencies.len() < count as usize
            },
        );
        tokio::join!(publishing, receiving);
        let (before, started) = begin.unwrap();
        latencies.sort_unstable();
        figures(before, started, f64::from(count), &latencies)
    }
}

async fn serve<A: whimbrel_sdk::Adapter>(
    properties: &[(String, String)],
    queue: tokio::sync::mpsc::Receiver<whimbrel::pubsub::BrokerJob>,
    batch: usize,
) {
    let adapter = native::open::<A>(properties).await;
    tokio::task::spawn_local(native::serve(adapter, queue, batch));
}

fn figures(before: Duration, started: Instant, messages: f64, latencies: &[Duration]) -> Figures {
    let (cpu, wall) = ((cpu::own() - before).as_secs_f64(), started.elapsed().as_secs_f64());
    let at = |fraction| load::percentile(latencies, fraction).as_secs_f64();
    Figures { cpu: cpu / messages, per_second: messages / wall, p50: at(0.5), p99: at(0.99) }
}
