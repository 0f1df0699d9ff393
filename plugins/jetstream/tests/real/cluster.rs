//! Three servers, and a stream with a copy on each: its leader dies again and again while messages flow.

use super::harness::*;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;
use whimbrel_sdk::{Adapter, Failure};

/// How often the leader dies.
const KILLS: usize = 3;

/// Messages that are confirmed before each death, and after.
const SHARE: u32 = 100;

/// How long one publish may take. What a leader has taken along to its grave is never answered.
const PUBLISH_WAIT: Duration = Duration::from_secs(3);

/// How long the last message may take to arrive: longer than its lease, and less than `until` waits.
const ARRIVE_MAX: Duration = Duration::from_secs(50);

/// How long a refused publish waits for its next try.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The stream, and its only topic.
const STREAM: &str = "orders";

/// Three servers. The one called `nK` has the place K.
struct Cluster(Vec<Server>);

impl Cluster {
    async fn start() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        // All at once, so that no two are the same.
        let held = [free(), free(), free()];
        let ports = held.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(held);
        let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
        let mut nodes = Vec::new();
        for (place, port) in ports.into_iter().enumerate() {
            let routes = format!("cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}");
            nodes.push(Server::with(&format!("server_name: n{place}\n{routes}"), "").await);
        }
        Self(nodes)
    }

    fn urls(&self) -> String {
        self.0.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    /// What the first server says that lives and knows.
    async fn info(&self) -> Option<Value> {
        for node in &self.0 {
            let Ok(client) = async_nats::connect(node.url()).await else { continue };
            let asked = client.request(format!("$JS.API.STREAM.INFO.{STREAM}"), "".into()).await;
            let told = asked.ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.payload).ok());
            if let Some(told) = told.filter(|told| told["error"].is_null()) {
                return Some(told);
            }
        }
        None
    }

    /// The server that leads the stream while all three have it.
    async fn leader(&self) -> &Server {
        let leader = RefCell::new(None);
        until("the stream has a leader and two others that keep up", async || {
            let Some(told) = self.info().await else { return false };
            let others = told["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
            let keeps_up = |other: &Value| other["current"] == true && other["offline"] != true;
            let place =
                told["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
            leader.replace(place.filter(|_| others.len() == 2 && others.iter().all(keeps_up)));
            leader.borrow().is_some()
        })
        .await;
        &self.0[leader.take().unwrap()]
    }
}

fn event(number: u32) -> Vec<u8> {
    json!({"specversion": "1.0", "id": number.to_string(), "source": "a", "type": "t"}).to_string().into_bytes()
}

fn number_of(event: &[u8]) -> u32 {
    serde_json::from_slice::<Value>(event).unwrap()["id"].as_str().unwrap().parse().unwrap()
}

/// What was confirmed, and what was received.
#[derive(Default)]
struct Ledger {
    confirmed: Cell<u32>,
    received: RefCell<BTreeSet<u32>>,
    is_over: Cell<bool>,
}

impl Ledger {
    /// Publishes numbers, each until it is confirmed, as publishers do; the last one, too.
    async fn publish(&self, bus: &Bus) {
        loop {
            let next = message(STREAM, &event(self.confirmed.get()));
            match bus.adapter.publish(vec![next], PUBLISH_WAIT).await.remove(0) {
                Ok(()) => {
                    self.confirmed.set(self.confirmed.get() + 1);
                    if self.is_over.get() {
                        return;
                    }
                }
                Err(Failure::Transient(_) | Failure::Unknown(_) | Failure::Throttled(_)) => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(refused) => panic!("refused for good: {refused:?}"),
            }
        }
    }

    async fn consume(&self, inbox: &Inbox) {
        loop {
            let list = inbox.list().await;
            self.received.borrow_mut().extend(list.iter().map(|one| number_of(&one.message.data)));
            // What a dying leader does not answer to, it may have taken all the same; if not, the message comes again.
            inbox.ack_all(&list).await;
        }
    }

    async fn goes_on(&self) {
        let from = self.confirmed.get();
        until("publishing goes on", async || self.confirmed.get() >= from + SHARE).await;
    }
}

/// Kills the leader, and starts it again once the others have gone on.
async fn leaders_die(cluster: &Cluster, ledger: &Ledger) {
    for _ in 0..KILLS {
        ledger.goes_on().await;
        let leader = cluster.leader().await;
        leader.kill();
        ledger.goes_on().await;
        leader.restart().await;
    }
    ledger.goes_on().await;
    ledger.is_over.set(true);
}

#[test]
fn leaders_that_die_under_load_cost_no_message() {
    run_within(Duration::from_secs(400), async {
        let cluster = Cluster::start().await;
        let settings = [("streamReplicas", "3"), ("ackWait", "2s")];
        let bus = open(&cluster.urls(), &settings).await;
        let ledger = Ledger::default();
        // The first one makes the stream, as soon as the servers have found each other.
        let first = async || bus.adapter.publish(vec![message(STREAM, &event(0))], PUBLISH_WAIT).await.remove(0);
        until("the stream is there", async || first().await.is_ok()).await;
        let inbox = bus.subscribe(STREAM, "app", 30).await;
        let publishing = async { tokio::join!(ledger.publish(&bus), leaders_die(&cluster, &ledger)) };
        let all_is_done = async {
            publishing.await;
            let all: BTreeSet<u32> = (0..ledger.confirmed.get()).collect();
            let missing = async || all.difference(&ledger.received.borrow()).copied().collect::<Vec<_>>();
            let waiting = until("", async || missing().await.is_empty());
            if tokio::time::timeout(ARRIVE_MAX, waiting).await.is_err() {
                panic!("confirmed and not received: {:?} of {}", missing().await, all.len());
            }
        };
        tokio::select! {
            () = ledger.consume(&inbox) => {}
            () = all_is_done => {}
        }
        let stored = cluster.leader().await.stored(STREAM).await;
        let numbers: Vec<u32> = stored.iter().map(|message| number_of(&message.payload)).collect();
        assert_eq!(numbers, (0..ledger.confirmed.get()).collect::<Vec<_>>(), "each once, in order");
    });
}
