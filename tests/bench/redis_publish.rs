//! Publishing to a real Redis: through the component, through the same adapter natively, and with the redis crate.
//! Each measurement is a process of its own, pinned to one core; Redis has the other.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use whimbrel::pubsub::{Broker, Message};
use whimbrel::resources::{Component, Position, Text, TopicScopes};
use whimbrel::wasm::{BrokerSettings, BrokerState, Engines, Grants, Loader, Plugin, start_broker};

use crate::redis_server::RedisServer;
use crate::{cpu, load, native, table};

/// How long one measurement publishes.
const RUN: Duration = Duration::from_secs(2);

const ROUNDS: usize = 3;

/// What is compared: a name, the child's word for it, and the most messages in one call.
const SIDES: [(&str, &str, usize); 5] = [
    ("component", "component", 512),
    ("the same codec natively", "native", 512),
    ("component, batches of 1", "component", 1),
    ("natively, batches of 1", "native", 1),
    ("redis crate", "crate", 1),
];

struct Figures {
    cpu: f64,
    per_second: f64,
    p50: f64,
    p99: f64,
}

pub fn measure() {
    let redis = RedisServer::start();
    table::head(
        "Publish to Redis, 1 KiB, the publisher's process pinned to one core",
        &[
            "publishers",
            "side",
            "CPU a message",
            "messages/s",
            "p50",
            "p99",
            "CPU, to native",
            "CPU, to the redis crate",
        ],
    );
    for publishers in [1, 16, 64, 256] {
        let mut rounds: Vec<Vec<Figures>> = SIDES.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (side, (_, word, batch)) in SIDES.iter().enumerate() {
                rounds[side].push(start(word, publishers, *batch, redis.port));
            }
        }
        let of = |side: usize, value: &dyn Fn(&Figures) -> f64| table::median(rounds[side].iter().map(value).collect());
        for (side, (name, _, batch)) in SIDES.iter().enumerate() {
            let cpu = of(side, &|figures| figures.cpu);
            let native = of(if *batch == 1 { 3 } else { 1 }, &|figures| figures.cpu);
            let micros = |value: f64| table::micros(Duration::from_secs_f64(value));
            table::row(&[
                publishers.to_string(),
                (*name).to_owned(),
                micros(cpu),
                format!("{:.0}", of(side, &|figures| figures.per_second)),
                micros(of(side, &|figures| figures.p50)),
                micros(of(side, &|figures| figures.p99)),
                format!("{:.2}", cpu / native),
                format!("{:.2}", cpu / of(4, &|figures| figures.cpu)),
            ]);
        }
    }
}

fn start(side: &str, publishers: usize, batch: usize, port: u16) -> Figures {
    let arguments =
        ["publish", side, &publishers.to_string(), &batch.to_string(), &port.to_string()].map(str::to_owned);
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [cpu, per_second, p50, p99] = numbers.as_slice() else { panic!("{text}") };
    Figures { cpu: *cpu, per_second: *per_second, p50: *p50, p99: *p99 }
}

/// The child's side: publishes for a while and prints its figures.
pub fn child(arguments: &[String]) {
    let [side, publishers, batch, port] = arguments else { panic!("{arguments:?}") };
    let (publishers, batch, port) = (publishers.parse().unwrap(), batch.parse().unwrap(), port.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let publish = publisher(side, port, batch).await;
        run(&publish, publishers, RUN / 4).await;
        let before = cpu::own();
        let started = Instant::now();
        let latencies = run(&publish, publishers, RUN).await;
        let (cpu, wall) = ((cpu::own() - before).as_secs_f64(), started.elapsed().as_secs_f64());
        let messages = latencies.len() as f64;
        let at = |fraction| load::percentile(&latencies, fraction).as_secs_f64();
        println!("{} {} {} {}", cpu / messages, messages / wall, at(0.5), at(0.99));
    }));
}

/// A way to publish one message.
enum Publisher {
    Broker(Broker),
    Crate(redis::aio::MultiplexedConnection),
}

async fn publisher(side: &str, port: u16, batch: usize) -> Publisher {
    match side {
        "crate" => {
            let client = redis::Client::open(("127.0.0.1", port)).unwrap();
            Publisher::Crate(client.get_multiplexed_async_connection().await.unwrap())
        }
        "native" => {
            let (broker, queue) = Broker::new(Arc::new(component()));
            tokio::task::spawn_local(native::run(port, queue, batch));
            Publisher::Broker(broker)
        }
        _ => {
            let properties = [("redisHost", format!("127.0.0.1:{port}")), ("maxLenApprox", "10000".to_owned())];
            Publisher::Broker(sandboxed("pubsub.redis", &properties, port, batch).await.1)
        }
    }
}

/// The real component in the real worker.
pub async fn sandboxed(kind: &str, properties: &[(&str, String)], port: u16, batch: usize) -> (Loader, Broker) {
    let bundled = whimbrel_artifacts::BUNDLED.iter().find(|bundled| bundled.kind == kind).unwrap();
    let plugin = Plugin::bundled(bundled.kind.as_ref(), bundled.bytes.to_vec()).unwrap();
    let cache = std::env::temp_dir().join("whimbrel-bench-cache");
    let loader = Loader::new(Engines::new().unwrap(), Some(cache));
    let (broker, queue) = Broker::new(Arc::new(component()));
    let mut grants = Grants::default();
    grants.allow("127.0.0.1", port);
    let settings = BrokerSettings {
        name: "bus".to_owned(),
        properties: properties.iter().map(|(name, value)| ((*name).to_owned(), Text::new(value.clone()))).collect(),
        instance: "bench".to_owned(),
        grants,
        open_wait: Duration::from_secs(10),
        batch_messages_max: Some(u32::try_from(batch).unwrap()),
        trap_every: None,
    };
    let mut state = start_broker(&loader, &plugin, &broker, queue, settings).unwrap();
    state.wait_for(|state| *state == BrokerState::Ready).await.unwrap();
    (loader, broker)
}

pub fn component() -> Component {
    Component {
        name: "bus".to_owned(),
        kind: "pubsub.redis".to_owned(),
        version: "v1".to_owned(),
        properties: Vec::new(),
        scopes: Vec::new(),
        topic_scopes: TopicScopes::default(),
        init_timeout: Duration::from_secs(5),
        ignore_errors: false,
        consumer_id: None,
        network: Vec::new(),
        plugin: None,
        at: Position { file: "bench".into(), line: 1 },
    }
}

/// So many publishers, each waiting for its confirm before its next message. Sorted latencies.
async fn run(publisher: &Publisher, publishers: usize, duration: Duration) -> Vec<Duration> {
    let data = Bytes::from(vec![b'x'; 1024]);
    let started = Instant::now();
    let count = AtomicU64::new(0);
    let one = async || {
        let mut latencies = Vec::new();
        while started.elapsed() < duration {
            let sent = Instant::now();
            publish(publisher, &data).await;
            latencies.push(sent.elapsed());
            count.fetch_add(1, Ordering::Relaxed);
        }
        latencies
    };
    let mut latencies: Vec<Duration> =
        futures::future::join_all((0..publishers).map(|_| one())).await.into_iter().flatten().collect();
    latencies.sort_unstable();
    latencies
}

async fn publish(publisher: &Publisher, data: &Bytes) {
    match publisher {
        Publisher::Broker(broker) => {
            let message = Message { topic: "bench".into(), key: None, data: data.clone(), metadata: Vec::new() };
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            let results = broker.publish(vec![message], deadline).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
        Publisher::Crate(connection) => {
            let mut connection = connection.clone();
            let command = &mut redis::cmd("XADD");
            command.arg("bench").arg("MAXLEN").arg("~").arg(10000).arg("*").arg("data").arg(data.as_ref());
            let id: String = command.query_async(&mut connection).await.unwrap();
            assert!(!id.is_empty());
        }
    }
}
