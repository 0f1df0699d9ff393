//! A broker, an adapter, a consumer, an independent client, and a proxy that can cut connections.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, LocalSet};
use whimbrel_rabbitmq::{Rabbitmq, RabbitmqSubscription};
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, Message, Property, SettleFailure, Settlement, Status, StatusSink,
    SubscribeOptions, Subscription, Verdict,
};

/// No test takes longer than this. A broker of its own needs some of it.
const TEST_MAX: Duration = Duration::from_secs(240);

/// Nothing that should happen takes longer than this.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What should not happen would have by now.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// Runs a test on one thread, as a component would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs");
    });
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A real RabbitMQ, started by the tests' own commands. It ends with this process.
pub(crate) struct Broker {
    pub(crate) port: u16,
    folder: PathBuf,
}

impl Broker {
    /// The one that all tests share that do not break it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Broker::start(&[]))
    }

    /// One of one's own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let owner = std::process::id().to_string();
        let mut words = vec!["start", "--owner", &owner, "--throw-away"];
        words.extend(arguments);
        let told = ask(&folder, &words);
        let port = told.split("\"address\": \"127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next());
        Self { port: port.unwrap().parse().unwrap(), folder }
    }

    /// As a power cut would.
    pub(crate) fn kill(&self) {
        ask(&self.folder, &["kill"]);
    }

    /// In good order.
    pub(crate) fn stop(&self) {
        ask(&self.folder, &["stop"]);
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&self) {
        ask(&self.folder, &["start", "--owner", &std::process::id().to_string()]);
    }

    /// Asks the broker's own tool.
    pub(crate) fn control(&self, words: &[&str]) -> String {
        let state = std::fs::read_to_string(self.folder.join("broker.json")).unwrap();
        let number = |name: &str| -> String {
            let rest = state.split(&format!("\"{name}\": ")).nth(1).unwrap();
            rest.chars().take_while(char::is_ascii_digit).collect()
        };
        let node = format!("broker{}@localhost", self.port);
        let output = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl")
            .args(["-q", "-n", &node])
            .args(words)
            .env("HOME", &self.folder)
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", number("epmd"))
            .env("RABBITMQ_CONF_ENV_FILE", self.folder.join("none"))
            .output()
            .expect("rabbitmqctl is missing: run tests/brokers/broker install rabbitmq");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// An independent client.
    pub(crate) async fn client(&self) -> Client {
        let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Client { connection, channel }
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}")
}

fn ask(folder: &Path, words: &[&str]) -> String {
    let broker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/brokers/broker");
    let output = Command::new(broker)
        .arg("rabbitmq")
        .args(words)
        .arg("--folder")
        .arg(folder)
        .output()
        .expect("tests/brokers/broker");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "run `tests/brokers/broker install rabbitmq` if it is missing: {words:?}: {errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A topic that no other test has.
pub(crate) fn topic(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What an independent client sees and does.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Client {
    /// Messages of a queue that nobody has taken. None: there is no such queue.
    pub(crate) async fn ready(&self, queue: &str) -> Option<u32> {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        let count = declared.message_count();
        channel.close(200, "".into()).await.ok();
        Some(count)
    }

    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind, durable: bool, auto_delete: bool) {
        let options = ExchangeDeclareOptions { durable, auto_delete, ..ExchangeDeclareOptions::default() };
        self.channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap();
    }

    pub(crate) async fn queue(&self, name: &str, durable: bool, auto_delete: bool, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable, auto_delete, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, arguments).await.unwrap();
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let options = QueueBindOptions::default();
        self.channel
            .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
            .await
            .unwrap();
    }

    pub(crate) async fn delete_queue(&self, name: &str) {
        self.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// A queue of the client's own that gets what is published to a topic.
    pub(crate) async fn listen(&self, topic: &str) -> String {
        let queue = format!("heard.{topic}");
        self.exchange(topic, ExchangeKind::Fanout, true, false).await;
        self.queue(&queue, true, false, FieldTable::default()).await;
        self.bind(&queue, topic, "").await;
        queue
    }

    pub(crate) async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap();
        sent.await.unwrap();
    }

    /// Takes the next message of a queue.
    pub(crate) async fn get(&self, queue: &str) -> Option<lapin::message::BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    }

    /// Takes all that is in a queue.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(message) = self.get(queue).await {
            all.push(message.delivery.data);
        }
        all
    }

    pub(crate) async fn consume(&self, queue: &str) -> lapin::Consumer {
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.into(), "observer".into(), options, FieldTable::default()).await.unwrap()
    }
}

/// An open adapter.
pub(crate) struct Bus {
    pub(crate) rabbitmq: Rc<Rabbitmq>,
    pub(crate) news: RefCell<mpsc::Receiver<Status>>,
}

/// A configuration as the host would hand it in.
pub(crate) fn config(url: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all = [("connectionString", url)].into_iter().chain(settings.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.to_owned(), value: value.to_owned() }).collect();
    Config { name: "bus".to_owned(), properties, instance: instance.to_owned() }
}

impl Bus {
    pub(crate) async fn open(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::try_open(url, settings).await.unwrap()
    }

    /// On the broker that is shared.
    pub(crate) async fn shared(settings: &[(&str, &str)]) -> Self {
        Self::open(&Broker::shared().url(), settings).await
    }

    pub(crate) async fn try_open(url: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let (sink, news) = StatusSink::channel();
        let opening = Rabbitmq::open(config(url, "i", settings), sink);
        let rabbitmq = tokio::time::timeout(SOON, opening).await.expect("open hangs")?;
        Ok(Self { rabbitmq: Rc::new(rabbitmq), news: RefCell::new(news) })
    }

    pub(crate) async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        self.send(message(topic, data)).await
    }

    pub(crate) async fn send(&self, message: Message) -> Result<(), Failure> {
        let mut results = self.rabbitmq.publish(vec![message], SOON).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Publishes the numbers.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u32>) {
        let messages = numbers.map(|number| message(topic, number.to_string().as_bytes())).collect();
        let results = self.rabbitmq.publish(messages, SOON).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    pub(crate) async fn subscribe(&self, topic: &str, max_unsettled: u32) -> Inbox {
        self.try_subscribe(topic, max_unsettled, &[]).await.unwrap()
    }

    pub(crate) async fn try_subscribe(
        &self,
        topic: &str,
        max_unsettled: u32,
        metadata: &[(&str, &str)],
    ) -> Result<Inbox, Failure> {
        let options = SubscribeOptions { max_unsettled, start: None, metadata: pairs(metadata) };
        let (sink, lists, ended) = DeliverySink::channel();
        let subscribing = self.rabbitmq.subscribe(topic.to_owned(), "app".to_owned(), options, sink);
        let subscription = tokio::time::timeout(SOON, subscribing).await.expect("subscribe hangs")?;
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
        let closing = Rc::clone(&self.rabbitmq).close();
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
    pub(crate) subscription: RabbitmqSubscription,
    lists: RefCell<mpsc::Receiver<Vec<Delivery>>>,
    _ended: oneshot::Receiver<Failure>,
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

/// Stands between adapter and broker.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    mute: Rc<Cell<bool>>,
    /// Bytes of answers that may pass before everything is cut.
    left: Rc<Cell<Option<usize>>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, mute, left) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)), Rc::default());
        let (kept, muted, counted) = (Rc::clone(&connections), Rc::clone(&mute), Rc::clone(&left));
        let listener = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let relaying = relay(client, server, Rc::clone(&muted), Rc::clone(&counted));
                kept.borrow_mut().push(tokio::task::spawn_local(relaying));
            }
        });
        Self { port, connections, mute, left, listener }
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    }

    /// Ends the connection on which so many more bytes of answers have come, in the middle of whatever they are.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.left.set(Some(bytes));
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

async fn relay(
    client: tokio::net::TcpStream,
    server: tokio::net::TcpStream,
    mute: Rc<Cell<bool>>,
    left: Rc<Cell<Option<usize>>>,
) {
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
            if mute.get() {
                continue;
            }
            if let Some(room) = left.get() {
                if room < count {
                    left.set(None);
                    return to_client.write_all(&buffer[..room]).await;
                }
                left.set(Some(room - count));
            }
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    tokio::select! { ended = asking => ended.ok(), ended = answering => ended.ok() };
}
