//! Real brokers of every kind: a private data folder, ports of their own, kill -9 and start again, and what a topic holds
//! as the broker's official client reads it. Called by the tests of delivery, and by whoever needs a broker besides.
//!
//! All work is done by `tests/brokers/broker`; nothing here knows a protocol. A broker ends with its [`Server`], and with
//! the test process however that ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::resource;
use super::scene::{Test, build_folder};

/// What can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Redis, with an append-only file.
    Redis,
    /// NATS with JetStream.
    Nats,
    /// RabbitMQ.
    RabbitMq,
    /// Apache Kafka.
    Kafka,
}

impl Kind {
    /// Every kind, for tests that hold for all.
    pub(crate) const ALL: [Self; 4] = [Self::Redis, Self::Nats, Self::RabbitMq, Self::Kafka];

    /// As `tests/brokers/broker` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::RabbitMq => "rabbitmq",
            Self::Kafka => "kafka",
        }
    }
}

/// A message as the broker stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its bytes.
    pub(crate) data: Bytes,
    /// What travels with it: fields, headers or properties.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The same as a line of what `broker read` prints and `broker write` takes.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    data: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// A running broker. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    folder: PathBuf,
    address: SocketAddr,
    known: Value,
}

impl Server {
    /// Starts one that belongs to a test, with options of `broker KIND start`.
    pub(crate) async fn start(test: &Test, kind: Kind, options: &[&str]) -> Result<Self> {
        Self::start_in(test.folder(kind.name())?, kind, options).await
    }

    /// The one of this kind that all tests share which do not break it. Take topics that nobody else has ([`topic`]).
    pub(crate) async fn shared(kind: Kind) -> Result<&'static Self> {
        static SHARED: [OnceCell<Server>; Kind::ALL.len()] = [const { OnceCell::const_new() }; Kind::ALL.len()];
        let at = Kind::ALL.iter().position(|one| *one == kind).and_then(|at| SHARED.get(at));
        let start = async || {
            let runs = build_folder()?.with_file_name("test-runs");
            let folder = runs.join(format!("shared-{}-{}", kind.name(), std::process::id()));
            Self::start_in(folder, kind, &["--throw-away"]).await
        };
        at.context("a kind that is not in the list")?.get_or_try_init(start).await
    }

    async fn start_in(folder: PathBuf, kind: Kind, options: &[&str]) -> Result<Self> {
        let known = start(&folder, kind, options).await?;
        let address = known["address"].as_str().context("no address")?.parse()?;
        Ok(Self { kind, folder, address, known })
    }

    /// Where it listens; of several nodes the first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another thing that `broker KIND start` prints, such as `tls_address`.
    pub(crate) fn known(&self, name: &str) -> Option<&str> {
        self.known[name].as_str()
    }

    /// A component for it, with leases short enough for tests.
    pub(crate) fn component(&self, name: &str, more: &[(&str, &str)]) -> String {
        self.component_at(name, self.address, more)
    }

    /// The same as if it listened elsewhere.
    pub(crate) fn component_at(&self, name: &str, address: SocketAddr, more: &[(&str, &str)]) -> String {
        let (kind, metadata) = match self.kind {
            Kind::Redis => return resource::redis(name, address, more),
            Kind::Nats => {
                ("pubsub.jetstream", vec![("natsURL", format!("nats://{address}")), ("ackWait", "2s".into())])
            }
            Kind::RabbitMq => ("pubsub.rabbitmq", vec![("connectionString", format!("amqp://guest:guest@{address}"))]),
            Kind::Kafka => {
                let lease = [("sessionTimeout", "3s".to_owned()), ("heartbeatInterval", "500ms".to_owned())];
                let known = [("brokers", address.to_string()), ("authType", "none".to_owned())];
                (
                    "pubsub.kafka",
                    known.into_iter().chain([("initialOffset", "oldest".to_owned())]).chain(lease).collect(),
                )
            }
        };
        let kept = metadata.iter().filter(|(key, _)| more.iter().all(|(name, _)| name != key));
        let kept = kept.map(|(key, value)| (*key, value.as_str()));
        resource::component(name, kind, &kept.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// Kills it: no handler of its own runs, nothing is flushed.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.run("kill", &[], &[]).await.map(drop)
    }

    /// Ends it in good order.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.run("stop", &[], &[]).await.map(drop)
    }

    /// Starts it again on its ports, with its data, and waits until it answers.
    pub(crate) async fn start_again(&self) -> Result<()> {
        start(&self.folder, self.kind, &[]).await.map(drop)
    }

    /// Makes a topic ready, where the broker does not do so by itself.
    pub(crate) async fn prepare(&self, topic: &str) -> Result<()> {
        self.run("prepare", &[topic], &[]).await.map(drop)
    }

    /// What a topic holds, acknowledged or not; in its order, where the topic has one.
    pub(crate) async fn read(&self, topic: &str) -> Result<Vec<Stored>> {
        let printed = self.run("read", &[topic], &[]).await?;
        let lines = printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(stored).collect()
    }

    /// The file that `whimbrel conform --config` takes for it.
    pub(crate) async fn profile(&self) -> Result<String> {
        Ok(String::from_utf8(self.run("profile", &[], &[]).await?)?)
    }

    /// Writes messages into a topic as Dapr's component lays them out.
    pub(crate) async fn write(&self, topic: &str, messages: &[Stored]) -> Result<()> {
        let mut lines = Vec::new();
        for Stored { data, metadata } in messages {
            let line = Line { data: STANDARD.encode(data), metadata: metadata.clone() };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        self.run("write", &[topic], &lines).await.map(drop)
    }

    async fn run(&self, verb: &str, more: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let mut command = broker(self.kind, verb, &self.folder)?;
        let mut child = command.args(more).stdin(Stdio::piped()).spawn().context("starting tests/brokers/broker")?;
        if let Some(mut pipe) = child.stdin.take() {
            // Where it ends early, what it says of that is worth more than a broken pipe.
            pipe.write_all(input).await.ok();
        }
        printed(verb, child.wait_with_output().await?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Synchronous: whoever looks afterwards finds nothing that runs. What goes wrong is seen to by the guard.
        if let Ok(command) = broker(self.kind, "kill", &self.folder) {
            command.into_std().stdin(Stdio::null()).status().ok();
        }
    }
}

/// A name that no other test's topic has.
pub(crate) fn topic(label: &str) -> String {
    format!("{label}-{:08x}", fastrand::u32(..))
}

async fn start(folder: &Path, kind: Kind, options: &[&str]) -> Result<Value> {
    let mut command = broker(kind, "start", folder)?;
    let owner = std::process::id().to_string();
    let output = command.args(["--owner", &owner]).args(options).stdin(Stdio::null()).output().await?;
    Ok(serde_json::from_slice(&printed("start", output)?)?)
}

/// `tests/brokers/broker KIND VERB --folder FOLDER`, with what it installs in the folder that cargo builds in.
fn broker(kind: Kind, verb: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("brokers/broker"));
    command.args([OsStr::new(kind.name()), OsStr::new(verb), OsStr::new("--folder"), folder.as_os_str()]);
    command.env("CARGO_TARGET_DIR", build_folder()?.parent().context("cargo's folder")?);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

fn printed(verb: &str, output: Output) -> Result<Vec<u8>> {
    if !output.status.success() {
        bail!("broker {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

fn stored(line: &[u8]) -> Result<Stored> {
    let Line { data, metadata } = serde_json::from_slice(line)?;
    Ok(Stored { data: STANDARD.decode(data)?.into(), metadata })
}

#[cfg(test)]
mod tests;
