//! Brokers, an adapter, a consumer, and a proxy that can cut connections.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use serde_json::Value;
use tokio::task::{JoinHandle, LocalSet};
use whimbrel_kafka::{Kafka, KafkaSubscription};
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, Message, Property, SettleFailure, Settlement, StartPosition,
    Status, StatusSink, SubscribeOptions, Subscription, Verdict,
};

/// No test takes longer than this.
const TEST_MAX: Duration = Duration::from_secs(120);

/// Nothing that should happen takes longer than this.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What should not happen would have by now.
pub(crate) const A_WHILE: Duration = Duration::from_millis(250);

thread_local! {
    /// Every test has a thread, and so names of its own on the broker that all share.
    static NUMBER: u32 = {
        static TESTS: AtomicU32 = AtomicU32::new(1);
        TESTS.fetch_add(1, Ordering::Relaxed)
    };
}

/// What a topic or a group of this test is called at the broker.
pub(crate) fn real(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}.{}", NUMBER.with(|number| *number)) }
}

/// Runs a test on one thread, as a component would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs");
    });
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(SOON, what, holds).await;
}

/// The same, for what takes longer.
pub(crate) async fn until_within(wait: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + wait;
    while !holds() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn brokers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/brokers/broker")
}

/// Runs `broker kafka`, and returns what it prints.
fn broker(words: &[&str], input: &str) -> String {
    let mut command = Command::new(brokers());
    command.arg("kafka").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "broker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The interpreter that has an independent client of Kafka.
pub(crate) fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let installed = Command::new(brokers()).args(["install", "kafka"]).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
        target.join("brokers/venv/bin/python")
    };
    PYTHON.get_or_init(find).clone()
}

/// A real Kafka that loses nothing it has confirmed, while its machine stands.
pub(crate) struct Server {
    folder: PathBuf,
    addresses: Vec<String>,
    internal: String,
    is_shared: bool,
    /// It ends with this process in any case.
    _kept: Option<tempfile::TempDir>,
}

static SHARED: OnceLock<(PathBuf, (Vec<String>, String))> = OnceLock::new();

impl Server {
    /// The one that all share, unless it must be special. It must be left alone.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        if !arguments.is_empty() {
            return Self::own(arguments).await;
        }
        let make = || {
            let folder = tempfile::tempdir().unwrap().keep();
            let addresses = launch(&folder, &[]);
            (folder, addresses)
        };
        let (folder, (addresses, internal)) =
            tokio::task::spawn_blocking(move || SHARED.get_or_init(make).clone()).await.unwrap();
        Self { folder, addresses, internal, is_shared: true, _kept: None }
    }

    /// One of the test's own.
    pub(crate) async fn own(arguments: &[&str]) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let folder = kept.path().to_owned();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let laid = folder.clone();
        let addresses = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            launch(&laid, &arguments)
        });
        let (addresses, internal) = addresses.await.unwrap();
        Self { folder, addresses, internal, is_shared: false, _kept: Some(kept) }
    }

    /// One that tells its clients the address of a proxy before it.
    pub(crate) async fn behind_proxy(arguments: &[&str]) -> (Self, Proxy) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let advertised = listener.local_addr().unwrap().to_string();
        let all: Vec<&str> = ["--advertise", &advertised].into_iter().chain(arguments.iter().copied()).collect();
        let server = Self::own(&all).await;
        let proxy = Proxy::start(listener, server.host());
        (server, proxy)
    }

    /// Where clients find it.
    pub(crate) fn host(&self) -> String {
        self.addresses.join(",")
    }

    /// Where nothing stands between: no proxy, no login, no TLS.
    pub(crate) fn internal(&self) -> String {
        self.internal.clone()
    }

    async fn command(&self, words: &[&str], input: String) -> String {
        let folder = self.folder.to_str().unwrap().to_owned();
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        all.splice(1..1, ["--folder".to_owned(), folder]);
        let run = move || broker(&all.iter().map(String::as_str).collect::<Vec<_>>(), &input);
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn command_alone(&self, words: &[&str]) {
        assert!(!self.is_shared, "this broker is not the test's own: Server::own");
        self.command(words, String::new()).await;
    }

    /// As a crash would.
    pub(crate) async fn kill(&self) {
        self.command_alone(&["kill"]).await;
    }

    pub(crate) async fn kill_node(&self, number: usize) {
        self.command_alone(&["kill", "--node", &number.to_string()]).await;
    }

    /// Starts what does not run, where it was.
    pub(crate) async fn restart(&self) {
        self.command_alone(&["start"]).await;
    }

    pub(crate) async fn freeze(&self, frozen: bool) {
        self.command_alone(&[if frozen { "freeze" } else { "thaw" }]).await;
    }

    pub(crate) async fn freeze_node(&self, number: usize, frozen: bool) {
        let verb = if frozen { "freeze" } else { "thaw" };
        self.command_alone(&[verb, "--node", &number.to_string()]).await;
    }

    /// Makes a topic, through an independent client.
    pub(crate) async fn prepare(&self, topic: &str) {
        self.command(&["prepare", &real(topic)], String::new()).await;
    }

    /// All that a topic holds, partition by partition, as an independent client reads it.
    pub(crate) async fn read(&self, topic: &str) -> Vec<Stored> {
        let lines = self.command(&["read", &real(topic)], String::new()).await;
        lines.lines().map(Stored::of).collect()
    }

    /// Writes messages through an independent client, laid out as Dapr's component does.
    pub(crate) async fn write(&self, topic: &str, messages: &[Foreign<'_>]) {
        let line = |(data, metadata): &Foreign<'_>| {
            let metadata: serde_json::Map<String, Value> =
                metadata.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
            serde_json::json!({ "data": BASE64.encode(data), "metadata": metadata }).to_string()
        };
        let lines: Vec<String> = messages.iter().map(line).collect();
        self.command(&["write", &real(topic)], lines.join("\n")).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_shared {
            // It would end with this process; the memory is needed before.
            broker(&["kill", "--folder", self.folder.to_str().unwrap()], "");
        }
    }
}

fn launch(folder: &Path, arguments: &[&str]) -> (Vec<String>, String) {
    python();
    let owner = std::process::id().to_string();
    let mut words = vec!["start", "--folder", folder.to_str().unwrap(), "--owner", &owner, "--throw-away"];
    words.extend(arguments);
    let told: Value = serde_json::from_str(&broker(&words, "")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (told["addresses"].as_array().unwrap().iter().map(text).collect(), text(&told["internal"]))
}

/// A message as it stands in a topic. Its metadata are its headers, `__key`, `__partition` and `__offset`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) data: Vec<u8>,
    pub(crate) metadata: Value,
}

impl Stored {
    fn of(line: &str) -> Self {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let data = BASE64.decode(line["data"].as_str().unwrap()).unwrap();
        Self { data, metadata: line["metadata"].take() }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.data).unwrap()
    }
}

/// An open adapter.
pub(crate) struct Bus {
    pub(crate) kafka: Rc<Kafka>,
    pub(crate) news: RefCell<mpsc::Receiver<Status>>,
}

/// Settings of every test: without credentials, from the beginning, and quick to miss a member.
const SETTINGS: [(&str, &str); 4] =
    [("authType", "none"), ("initialOffset", "oldest"), ("sessionTimeout", "2s"), ("heartbeatInterval", "300ms")];

/// A configuration as the host would hand it in.
pub(crate) fn config(host: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all = [("brokers", host)].into_iter().chain(SETTINGS).chain(settings.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.to_owned(), value: value.to_owned() }).collect();
    Config { name: "bus".to_owned(), properties, instance: instance.to_owned() }
}

impl Bus {
    pub(crate) async fn open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Self {
        Self::try_open(host, instance, settings).await.unwrap()
    }

    pub(crate) async fn try_open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let (sink, news) = StatusSink::channel();
        let opening = Kafka::open(config(host, instance, settings), sink);
        let kafka = tokio::time::timeout(SOON, opening).await.expect("open hangs")?;
        Ok(Self { kafka: Rc::new(kafka), news: RefCell::new(news) })
    }

    pub(crate) async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        let mut results = self.kafka.publish(vec![message(topic, data)], SOON).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Publishes the numbers.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u32>) {
        let messages = numbers.map(|number| message(topic, number.to_string().as_bytes()));
        self.publish_all(messages.collect()).await;
    }

    /// Publishes the numbers, each under one of so many keys.
    pub(crate) async fn publish_keyed(&self, topic: &str, numbers: std::ops::Range<u32>, keys: u32) {
        let keyed = |number: u32| {
            let key = Some(format!("key-{}", number % keys));
            Message { key, ..message(topic, number.to_string().as_bytes()) }
        };
        self.publish_all(numbers.map(keyed).collect()).await;
    }

    async fn publish_all(&self, messages: Vec<Message>) {
        let results = self.kafka.publish(messages, SOON).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    pub(crate) async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Inbox {
        self.subscribe_from(topic, group, max_unsettled, None).await
    }

    pub(crate) async fn subscribe_from(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Inbox {
        self.try_subscribe(topic, group, max_unsettled, start).await.unwrap()
    }

    pub(crate) async fn try_subscribe(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Result<Inbox, Failure> {
        let options = SubscribeOptions { max_unsettled, start, metadata: Vec::new() };
        let (sink, lists, ended) = DeliverySink::channel();
        let subscription = self.kafka.subscribe(real(topic), real(group), options, sink).await?;
        let subscription = RefCell::new(Some(Rc::new(subscription)));
        Ok(Inbox { subscription, lists: RefCell::new(lists), _ended: ended, waiting: RefCell::default() })
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

    pub(crate) async fn close(self) {
        let closing = Rc::clone(&self.kafka).close();
        tokio::time::timeout(Duration::from_secs(6), closing).await.expect("close hangs");
    }
}

pub(crate) fn message(topic: &str, data: &[u8]) -> Message {
    Message { topic: real(topic), key: None, data: data.to_vec(), metadata: Vec::new() }
}

/// A message as an independent client writes it: its bytes and its metadata.
pub(crate) type Foreign<'a> = (&'a [u8], &'a [(&'a str, &'a str)]);

/// The host's end of a subscription.
pub(crate) struct Inbox {
    subscription: RefCell<Option<Rc<KafkaSubscription>>>,
    lists: RefCell<mpsc::Receiver<Vec<Delivery>>>,
    _ended: oneshot::Receiver<Failure>,
    waiting: RefCell<std::collections::VecDeque<Delivery>>,
}

impl Inbox {
    /// All deliveries that have come; waits for one.
    pub(crate) async fn list(&self) -> Vec<Delivery> {
        let first = self.waiting.borrow_mut().pop_front();
        let first = match first {
            Some(delivery) => delivery,
            None => self.wait_for_ever().await,
        };
        std::iter::once(first).chain(self.waiting.take()).collect()
    }

    async fn wait_for_ever(&self) -> Delivery {
        let list = self.next_list().await.expect("the stream ended");
        self.waiting.borrow_mut().extend(list);
        self.waiting.borrow_mut().pop_front().expect("an empty list was handed over")
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

    /// What else comes, until nothing has for a while.
    pub(crate) async fn rest(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        while let Some(delivery) = self.within(A_WHILE).await {
            all.push(delivery);
        }
        all
    }

    pub(crate) async fn is_quiet(&self) -> bool {
        self.within(A_WHILE).await.is_none()
    }

    fn live(&self) -> Rc<KafkaSubscription> {
        self.subscription.borrow().clone().expect("it is stopped")
    }

    pub(crate) async fn settle(&self, token: u64, verdict: Verdict) -> Result<(), SettleFailure> {
        let mut results = self.live().settle(vec![Settlement { token, verdict }]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    pub(crate) async fn ack(&self, delivery: &Delivery) {
        self.settle(delivery.token, Verdict::Ack).await.unwrap();
    }

    pub(crate) async fn ack_all(&self, deliveries: &[Delivery]) -> Vec<Result<(), SettleFailure>> {
        let settlement = |delivery: &Delivery| Settlement { token: delivery.token, verdict: Verdict::Ack };
        self.live().settle(deliveries.iter().map(settlement).collect()).await
    }

    pub(crate) async fn pause(&self) {
        self.live().pause().await;
    }

    pub(crate) async fn resume(&self) {
        self.live().resume().await;
    }

    /// Stops, as the host does: nobody settles any more.
    pub(crate) async fn subscription_stop(&self) {
        let subscription = self.subscription.take().expect("it is stopped");
        let subscription = Rc::try_unwrap(subscription).unwrap_or_else(|_| panic!("somebody settles"));
        tokio::time::timeout(SOON, subscription.stop()).await.expect("stop hangs");
    }

    /// Stops once nobody settles any more.
    pub(crate) async fn stop_shared(&self) {
        until("nobody settles", || self.subscription.borrow().as_ref().is_none_or(|one| Rc::strong_count(one) == 1))
            .await;
        self.subscription_stop().await;
    }

    /// `None`: settling is over.
    pub(crate) async fn settle_after_stop(&self, delivery: &Delivery) -> Option<Result<(), SettleFailure>> {
        let live = self.subscription.borrow().clone()?;
        Some(live.settle(vec![Settlement { token: delivery.token, verdict: Verdict::Ack }]).await.remove(0))
    }
}

/// The number in a message.
pub(crate) fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.message.data).unwrap().parse().unwrap()
}

/// One entry of a delivery's metadata.
pub(crate) fn metadata<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    let pairs = &delivery.message.metadata;
    pairs
        .iter()
        .rev()
        .find(|(known, _)| known == name)
        .map_or_else(|| panic!("no {name}: {pairs:?}"), |(_, value)| value)
}

/// Where a delivery stands in its partition.
pub(crate) fn offset(delivery: &Delivery) -> i64 {
    metadata(delivery, "__offset").parse().unwrap()
}

/// Stands between adapter and server.
pub(crate) struct Proxy {
    address: String,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    refuses: Rc<Cell<bool>>,
    mute: Rc<Cell<bool>>,
    accepted: Rc<Cell<u32>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(listener: tokio::net::TcpListener, server: String) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let connections: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        let (refuses, mute) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let accepted = Rc::new(Cell::new(0));
        let (kept, refusing, muted, count) =
            (Rc::clone(&connections), Rc::clone(&refuses), Rc::clone(&mute), Rc::clone(&accepted));
        let listener = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.set(count.get() + 1);
                if refusing.get() {
                    continue;
                }
                let Ok(server) = tokio::net::TcpStream::connect(&server).await else { continue };
                kept.borrow_mut().push(tokio::task::spawn_local(relay(client, server, Rc::clone(&muted))));
            }
        });
        Self { address, connections, refuses, mute, accepted, listener }
    }

    pub(crate) fn host(&self) -> String {
        self.address.clone()
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> u32 {
        self.accepted.get()
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// Hangs up on whoever comes.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.refuses.set(refuse);
    }

    /// Swallows what the server says.
    pub(crate) fn mute(&self, mute: bool) {
        self.mute.set(mute);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn relay(client: tokio::net::TcpStream, server: tokio::net::TcpStream, mute: Rc<Cell<bool>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
