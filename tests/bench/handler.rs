//! Publish, handle, publish onwards: an order goes in, the example handler (a real component) checks and enriches it and
//! publishes it again, and a native subscriber takes the second event. At a steady rate, in one pinned process.
//!
//! The floor beside it does the same with a native function in the handler's place.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use whimbrel::pubsub::{
    Broker, Caller, Environment, Handler, HandlerJob, Live, Outcome, PublishRequest, Subscription, Topology, Trace,
    deliver, publish,
};
use whimbrel::resources::{HandlerLimits, Origin, Policies, Subscription as Declared};
use whimbrel::wasm::{HandlerSettings, Loader, Plugin, start_handler};

use crate::adapters::sandbox;
use crate::redis_server::RedisServer;
use crate::{cpu, load, table};

/// Orders a second.
const RATE: u64 = 2000;

const RUN: Duration = Duration::from_secs(4);

const ROUNDS: usize = 3;

pub fn measure() {
    let redis = RedisServer::start();
    table::head(
        "Publish, handle, publish onwards, receive: 2,000 orders a second, one process pinned to one core",
        &["broker", "handler", "CPU an order", "p50, publish to second event", "p99", "CPU, to the native handler"],
    );
    for broker in ["in-memory", "redis"] {
        let mut rounds: [Vec<[f64; 3]>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (index, handler) in ["component", "native"].iter().enumerate() {
                rounds[index].push(start(broker, handler, redis.port));
            }
        }
        let of = |side: usize, figure: usize| table::median(rounds[side].iter().map(|round| round[figure]).collect());
        for (side, handler) in ["component", "native"].iter().enumerate() {
            let micros = |figure| table::micros(Duration::from_secs_f64(of(side, figure)));
            let ratio = format!("{:.2}", of(side, 0) / of(1, 0));
            table::row(&[broker.to_owned(), (*handler).to_owned(), micros(0), micros(1), micros(2), ratio]);
        }
    }
}

fn start(broker: &str, handler: &str, port: u16) -> [f64; 3] {
    let port = port.to_string();
    let program = std::env::current_exe().unwrap();
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(program)
        .args(["handle", broker, handler, &port])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// The child's side.
pub fn child(arguments: &[String]) {
    let [broker, handler, port] = arguments else { panic!("{arguments:?}") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let port = port.parse().unwrap();
    let [cpu, p50, p99] = runtime.block_on(run(broker == "redis", handler == "component", port));
    println!("{cpu} {p50} {p99}");
    std::process::exit(0);
}

/// When each order was published, and how long its second event took.
#[derive(Default)]
struct Orders {
    sent: HashMap<u64, Instant>,
    latencies: Vec<Duration>,
}

async fn run(redis: bool, component_handler: bool, port: u16) -> [f64; 3] {
    let (loader, broker) = broker(redis, port).await;
    let topology = Arc::new(ArcSwap::from_pointee(Topology {
        environment: Environment::system(),
        brokers: HashMap::from([("bus".to_owned(), broker)]),
        policies: Policies::default(),
    }));
    let orders = Arc::new(Mutex::new(Orders::default()));
    let (enricher, queue) = Handler::new();
    if component_handler {
        let plugin = Plugin::read(whimbrel_artifacts::RUST.path.as_ref()).unwrap();
        let settings = HandlerSettings {
            name: "enricher".to_owned(),
            caller: caller("enricher"),
            limits: HandlerLimits::default(),
            topology: Arc::clone(&topology),
        };
        start_handler(&loader, &plugin, queue, settings).unwrap();
    } else {
        tokio::spawn(enrich(queue, Arc::clone(&topology)));
    }
    let (receiver, queue) = Handler::new();
    tokio::spawn(receive(queue, Arc::clone(&orders)));
    let run = std::process::id();
    for (topic, app, handler) in
        [(format!("orders-{run}"), "enricher", enricher), ("orders-enriched".to_owned(), "shipping", receiver)]
    {
        subscribe(&topology, topic, &format!("{app}-{run}"), handler).await;
    }
    load(&topology, &format!("orders-{run}"), &orders, RUN / 4, 0).await;
    let before = cpu::own();
    let from = 1 << 32;
    let count = load(&topology, &format!("orders-{run}"), &orders, RUN, from).await;
    let used = (cpu::own() - before).as_secs_f64();
    let mut latencies = orders.lock().unwrap().latencies.split_off(0);
    latencies.sort_unstable();
    [
        used / count as f64,
        load::percentile(&latencies, 0.5).as_secs_f64(),
        load::percentile(&latencies, 0.99).as_secs_f64(),
    ]
}

async fn broker(redis: bool, port: u16) -> (Loader, Broker) {
    let (kind, name, value) = if redis {
        ("pubsub.redis", "redisHost", format!("127.0.0.1:{port}"))
    } else {
        ("pubsub.in-memory", "mode", "queue".to_owned())
    };
    sandbox::open(kind, &[(name.to_owned(), value)], 512).await
}

fn caller(app_id: &str) -> Caller {
    Caller { app_id: Arc::from(app_id) }
}

async fn subscribe(topology: &Arc<ArcSwap<Topology>>, topic: String, group: &str, handler: Handler) {
    let declared = Declared {
        name: String::new(),
        pubsub: sandbox::component().name,
        topic,
        rules: Vec::new(),
        default_route: Some(String::new()),
        dead_letter_topic: None,
        metadata: Vec::new(),
        bulk: None,
        scopes: Vec::new(),
        origin: Origin::Handler,
    };
    let subscription =
        Subscription { declared: Arc::new(declared), caller: caller("shipping"), group: group.to_owned(), handler };
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(deliver(Arc::new(Live::new(subscription)), Arc::clone(topology), ready, CancellationToken::new()));
    is_ready.await.unwrap();
}

fn request(app: &str, topic: &str, data: Vec<u8>) -> PublishRequest {
    PublishRequest {
        caller: caller(app),
        pubsub: "bus".to_owned(),
        topic: topic.to_owned(),
        data: data.into(),
        content_type: Some("application/json".to_owned()),
        metadata: Vec::new(),
        trace: Trace::default(),
    }
}

/// The native twin of the example handler: parse, check, compute, publish.
async fn enrich(mut queue: mpsc::Receiver<HandlerJob>, topology: Arc<ArcSwap<Topology>>) {
    while let Some(job) = queue.recv().await {
        let topology = topology.load_full();
        tokio::spawn(async move {
            let mut order: serde_json::Value = serde_json::from_slice(&job.event.data()).unwrap();
            let total = order["quantity"].as_f64().unwrap() * order["price"].as_f64().unwrap();
            order["total"] = total.into();
            order["priority"] = "normal".into();
            let request = request("enricher", "orders-enriched", serde_json::to_vec(&order).unwrap());
            publish(&topology, request).await.unwrap();
            job.reply.send(Ok(Outcome::Success)).ok();
        });
    }
}

/// Takes the second events.
async fn receive(mut queue: mpsc::Receiver<HandlerJob>, orders: Arc<Mutex<Orders>>) {
    while let Some(job) = queue.recv().await {
        let order: serde_json::Value = serde_json::from_slice(&job.event.data()).unwrap();
        let id: u64 = order["id"].as_str().unwrap().parse().unwrap();
        let mut orders = orders.lock().unwrap();
        if let Some(sent) = orders.sent.remove(&id) {
            orders.latencies.push(sent.elapsed());
        }
        job.reply.send(Ok(Outcome::Success)).ok();
    }
}

/// Publishes orders at the rate for a while and waits until each has come back. How many there were.
async fn load(
    topology: &Arc<ArcSwap<Topology>>,
    topic: &str,
    orders: &Arc<Mutex<Orders>>,
    duration: Duration,
    from: u64,
) -> u64 {
    orders.lock().unwrap().latencies.clear();
    let count = duration.as_millis() as u64 * RATE / 1000;
    let mut clock = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for id in from..from + count {
        clock.tick().await;
        let padding = "x".repeat(900);
        let order = format!("{{\"id\":\"{id}\",\"item\":\"tea\",\"quantity\":2,\"price\":2.5,\"note\":\"{padding}\"}}");
        let request = request("shop", topic, order.into_bytes());
        orders.lock().unwrap().sent.insert(id, Instant::now());
        let topology = topology.load_full();
        tokio::spawn(async move { publish(&topology, request).await.unwrap() });
    }
    while !orders.lock().unwrap().sent.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    count
}
