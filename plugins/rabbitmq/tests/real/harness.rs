//! A broker, an adapter, a consumer, an independent client, and a proxy that can cut connections.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use whimbrel_rabbitmq::Rabbitmq;
use whimbrel_sdk::{Config, Failure, SubscribeOptions, testing};

pub(crate) use whimbrel_sdk::testing::{
    A_WHILE, Proxy, SOON, Traffic, message, number, options, pairs, retry, run, until,
};

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
pub(crate) type Bus = testing::Bus<Rabbitmq>;

/// A configuration as the host would hand it in.
pub(crate) fn config(url: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all: Vec<_> = [("connectionString", url)].into_iter().chain(settings.iter().copied()).collect();
    testing::config(instance, &all)
}

pub(crate) async fn open(url: &str, settings: &[(&str, &str)]) -> Bus {
    Bus::open(config(url, "i", settings)).await
}

/// On the broker that is shared.
pub(crate) async fn shared(settings: &[(&str, &str)]) -> Bus {
    open(&Broker::shared().url(), settings).await
}

pub(crate) async fn try_open(url: &str, settings: &[(&str, &str)]) -> Result<Bus, Failure> {
    Bus::try_open(config(url, "i", settings)).await
}

/// How to subscribe, with metadata.
pub(crate) fn with(max_unsettled: u32, metadata: &[(&str, &str)]) -> SubscribeOptions {
    SubscribeOptions { metadata: pairs(metadata), ..options(max_unsettled) }
}
