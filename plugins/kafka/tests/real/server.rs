//! Brokers as processes: started, killed, frozen, asked, and told to fail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::harness::real;
use whimbrel_sdk::testing::Proxy;

/// A message as an independent client writes it: its bytes and its metadata.
pub(crate) type Foreign<'a> = (&'a [u8], &'a [(&'a str, &'a str)]);

fn brokers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/brokers/broker")
}

/// Runs a command of `broker`, and returns what it prints.
fn broker(words: &[&str], input: &str) -> String {
    let mut command = Command::new(brokers());
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
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

/// What `broker` calls a real Kafka, and one that is librdkafka's mock.
const REAL: &str = "kafka";
const MOCK: &str = "mock";

/// A Kafka that loses nothing it has confirmed, while its machine stands.
pub(crate) struct Server {
    kind: &'static str,
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
            let addresses = launch(REAL, &folder, &[]);
            (folder, addresses)
        };
        let (folder, (addresses, internal)) =
            tokio::task::spawn_blocking(move || SHARED.get_or_init(make).clone()).await.unwrap();
        Self { kind: REAL, folder, addresses, internal, is_shared: true, _kept: None }
    }

    /// One of the test's own.
    pub(crate) async fn own(arguments: &[&str]) -> Self {
        Self::of(REAL, arguments).await
    }

    /// A mock, in memory, that fails on request: see [`tell`](Self::tell).
    pub(crate) async fn mock(arguments: &[&str]) -> Self {
        Self::of(MOCK, arguments).await
    }

    async fn of(kind: &'static str, arguments: &[&str]) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let folder = kept.path().to_owned();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let laid = folder.clone();
        let addresses = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            launch(kind, &laid, &arguments)
        });
        let (addresses, internal) = addresses.await.unwrap();
        Self { kind, folder, addresses, internal, is_shared: false, _kept: Some(kept) }
    }

    /// One that tells its clients the address of a proxy before it.
    pub(crate) async fn behind_proxy(arguments: &[&str]) -> (Self, Proxy) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let advertised = listener.local_addr().unwrap().to_string();
        let all: Vec<&str> = ["--advertise", &advertised].into_iter().chain(arguments.iter().copied()).collect();
        let server = Self::own(&all).await;
        let proxy = Proxy::on(listener, server.host());
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
        all.insert(0, self.kind.to_owned());
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

    /// Asks a mock for a fault, or for what it counts: the words of `broker mock tell`. Names are the broker's.
    pub(crate) async fn tell(&self, words: &[&str]) -> String {
        let all: Vec<&str> = ["tell"].iter().chain(words).copied().collect();
        self.command(&all, String::new()).await.trim().to_owned()
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
            broker(&[self.kind, "kill", "--folder", self.folder.to_str().unwrap()], "");
        }
    }
}

fn launch(kind: &str, folder: &Path, arguments: &[&str]) -> (Vec<String>, String) {
    python();
    let owner = std::process::id().to_string();
    let mut words = vec![kind, "start", "--folder", folder.to_str().unwrap(), "--owner", &owner, "--throw-away"];
    words.extend(arguments);
    let told: Value = serde_json::from_str(&broker(&words, "")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let addresses: Vec<String> = told["addresses"].as_array().unwrap().iter().map(text).collect();
    let internal = told.get("internal").map_or_else(|| addresses.join(","), text);
    (addresses, internal)
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
