//! A host with a fake broker on a free port, and a client that speaks raw HTTP to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::{Broker, BrokerError, BrokerJob, Caller, Environment, Message, Topology};
use whimbrel_resources::{Component, Policies, Position, TopicScopes};

use super::super::{Server, run};
use super::PATIENCE;
use crate::{Doors, Health};

pub(super) type Stored = Arc<Mutex<Vec<Message>>>;

/// A broker that keeps what it is given and answers with what `answer` makes of it.
pub(super) fn fake_broker(
    scopes: TopicScopes,
    answer: impl Fn(&Message) -> Result<(), BrokerError> + Send + 'static,
) -> (Broker, Stored) {
    let (broker, mut queue): (Broker, mpsc::Receiver<BrokerJob>) = Broker::new(component(scopes));
    let stored = Stored::default();
    let kept = Arc::clone(&stored);
    tokio::spawn(async move {
        while let Some(job) = queue.recv().await {
            if let BrokerJob::Publish(job) = job {
                let results = job.messages.iter().map(&answer).collect();
                kept.lock().expect("no test panics with it").extend(job.messages);
                job.reply.send(results).ok();
            }
        }
    });
    (broker, stored)
}

pub(super) fn component(topic_scopes: TopicScopes) -> Arc<Component> {
    Arc::new(Component {
        name: "bus".into(),
        kind: "pubsub.fake".into(),
        version: "v1".into(),
        properties: Vec::new(),
        scopes: Vec::new(),
        topic_scopes,
        init_timeout: Duration::from_secs(5),
        ignore_errors: false,
        consumer_id: None,
        topic_prefix: None,
        network: Vec::new(),
        plugin: None,
        at: Position { file: "bus.yaml".into(), line: 1 },
    })
}

pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) stored: Stored,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
    pub(super) served: JoinHandle<()>,
}

/// A host with the given broker and whatever else `change` sets.
pub(super) async fn host_with(broker: (Broker, Stored), change: impl FnOnce(&mut Doors)) -> Host {
    host_of(broker, change, |doors| {
        let connections_max = doors.connections_max;
        Server::new(doors, connections_max)
    })
    .await
}

/// A host that serves its public port.
pub(super) async fn host_public(change: impl FnOnce(&mut Doors)) -> Host {
    let broker = fake_broker(TopicScopes::default(), |_| Ok(()));
    host_of(broker, change, |doors| Server { public: true, ..Server::new(doors, 64) }).await
}

async fn host_of(
    (broker, stored): (Broker, Stored),
    change: impl FnOnce(&mut Doors),
    server: impl FnOnce(Arc<Doors>) -> Server,
) -> Host {
    let topology = Topology {
        environment: Environment::system(),
        brokers: [("bus".to_owned(), broker)].into(),
        policies: Policies::default(),
    };
    let states = || vec![("bus".to_owned(), "restarting (3 of 10): trapped".to_owned())];
    let health = Arc::new(Health::new(Box::new(states)));
    let caller = Caller { app_id: "me".into() };
    let mut doors = Doors::new(Arc::new(ArcSwap::from_pointee(topology)), caller, Arc::clone(&health));
    change(&mut doors);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let server = Arc::new(server(Arc::new(doors)));
    let served = tokio::spawn(run(vec![listener], server, stop.clone()));
    Host { address, stored, health, stop, served }
}

pub(super) async fn host() -> Host {
    host_with(fake_broker(TopicScopes::default(), |_| Ok(())), |_| {}).await
}

impl Host {
    pub(super) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.expect("the server listens"), read: Vec::new() }
    }

    /// Sends one request on its own connection.
    pub(super) async fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request.as_bytes()).await;
        client.reply(!request.starts_with("HEAD")).await
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.stored.lock().expect("no test panics with it").iter().map(|message| message.topic.to_string()).collect()
    }
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// As sent, in lower case.
    head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(known, _)| *known == name).map(|(_, v)| v)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }
}

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server reads");
    }

    /// Reads until `done` finds what it looks for; `None` at the end of the stream.
    pub(super) async fn read_until<T>(&mut self, done: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = done(&self.read) {
                return Some(found);
            }
            let count = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("the server answers");
            if count.ok()? == 0 {
                return None;
            }
        }
    }

    pub(super) async fn reply(&mut self, has_body: bool) -> Reply {
        let end = |read: &[u8]| read.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let head_length = self.read_until(end).await.expect("a whole head");
        let head = String::from_utf8_lossy(&self.read[..head_length]).to_lowercase();
        self.read.drain(..head_length);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut reply = Reply { status, head, body: String::new() };
        let length = reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if has_body {
            self.read_until(|read| (read.len() >= length).then_some(())).await.expect("a whole body");
            reply.body = String::from_utf8(self.read.drain(..length).collect()).expect("a body in UTF-8");
        }
        reply
    }

    pub(super) async fn is_closed(&mut self) -> bool {
        self.read_until(|_| None::<()>).await.is_none()
    }
}
