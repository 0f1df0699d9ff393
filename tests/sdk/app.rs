//! An app with an SDK beside a host, as `dapr run` starts the two. Called by every test of this folder.
//!
//! All apps subscribe to the same topics of the broker `bus`, write down what they are told, answer as the data asks, and
//! publish what they are told to on `POST /publish`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::port;
use crate::harness::host::{Host, HostPlan};
use crate::harness::{self, Test, build_folder, http, until};

/// The SDKs, each in the app that is written with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sdk {
    /// Python, `dapr-ext-fastapi`.
    FastApi,
    /// Python, `flask-dapr`.
    Flask,
    /// JavaScript, `@dapr/dapr`.
    JavaScript,
}

impl Sdk {
    /// Python's handlers see the event; JavaScript's SDK hands over its data and the headers.
    pub(super) fn shows_events(self) -> bool {
        self != Self::JavaScript
    }

    fn command(self, installed: &Path) -> Command {
        let (runs, app) = match self {
            Self::FastApi => ("venv/bin/python", "fastapi_app.py"),
            Self::Flask => ("venv/bin/python", "flask_app.py"),
            Self::JavaScript => ("nodejs/bin/node", "javascript_app.js"),
        };
        let mut command = Command::new(installed.join(runs));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/apps").join(app)).env_clear();
        command.env("NODE_PATH", installed.join("javascript/node_modules")).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// A test of this folder: what it needs is installed first, outside of its bound in time.
pub(super) fn run(body: impl AsyncFnOnce(&Test) -> Result<()>) -> Result<()> {
    install()?;
    harness::run(body)
}

/// Installs the SDKs, once, and says where they are.
fn install() -> Result<PathBuf> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let target = build_folder().map_err(|error| error.to_string())?.with_file_name("");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/install");
        let mut command = std::process::Command::new(script);
        let output = command.env("CARGO_TARGET_DIR", &target).stdin(Stdio::null()).output();
        match output.map_err(|error| error.to_string())? {
            output if output.status.success() => Ok(target.join("sdk")),
            output => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    installed.clone().map_err(|what| anyhow!("tests/sdk/install: {what}"))
}

/// A host and its app.
#[derive(Debug)]
pub(super) struct Pair {
    /// The SDK that the app is written with.
    pub(super) sdk: Sdk,
    /// The host.
    pub(super) host: Host,
    port: u16,
    folder: PathBuf,
    _app: Child,
}

impl Pair {
    /// Starts both, the app with this environment besides, and returns when the host has subscribed for it.
    pub(super) async fn start(test: &Test, sdk: Sdk, plan: HostPlan, environment: &[(&str, &str)]) -> Result<Self> {
        let (port, folder) = (port::reserve()?, test.folder("app")?);
        let mut host = plan.app_port(port).launch()?;
        let log = folder.join("app.log");
        let output = File::create(&log)?;
        let mut command = sdk.command(&install()?);
        command.env("APP_PORT", port.to_string()).env("DAPR_HTTP_PORT", host.listening().await?.port().to_string());
        command.env("SEEN", folder.join("seen")).envs(environment.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut app = command.spawn().with_context(|| format!("starting {sdk:?}"))?;
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        tokio::select! {
            ready = host.ready() => ready.with_context(|| format!("the app said: {}", text()))?,
            ended = app.wait() => bail!("the app ended, {ended:?}: {}", text()),
        }
        Ok(Self { sdk, host, port, folder, _app: app })
    }

    /// Lets the app publish, and returns the error that the SDK gave it, or null.
    pub(super) async fn publish(&self, topic: &str, kind: &str, data: Value, metadata: Value) -> Result<Value> {
        let command = json!({"pubsub": "bus", "topic": topic, "kind": kind, "data": data, "metadata": metadata});
        Ok(self.command(&command).await?["error"].take())
    }

    /// Lets the app publish, and insists that the SDK saw no error.
    pub(super) async fn publish_ok(&self, topic: &str, kind: &str, data: Value, metadata: Value) -> Result<()> {
        match self.publish(topic, kind, data, metadata).await? {
            Value::Null => Ok(()),
            error => bail!("publishing to {topic}: {error}"),
        }
    }

    /// Tells the app to publish, and returns its answer.
    pub(super) async fn command(&self, command: &Value) -> Result<Value> {
        let headers = [("content-type", "application/json")];
        let to = ([127, 0, 0, 1], self.port).into();
        let answer = http::send(to, "POST", "/publish", &headers, command.to_string().as_bytes()).await?;
        answer.json().with_context(|| format!("the app answered {}: {}", answer.status, self.folder.display()))
    }

    /// What the app was told on a topic, oldest first; of one `key`, where that is not empty.
    pub(super) fn seen(&self, topic: &str, key: &str) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.join("seen")).unwrap_or_default();
        // A line without its end is still being written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let seen = lines.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?.into_iter();
        Ok(seen.filter(|seen| seen["topic"] == topic && (key.is_empty() || seen["data"]["key"] == key)).collect())
    }

    /// Waits until the app was told so many on a topic, and returns them.
    pub(super) async fn wait_for(&self, count: usize, topic: &str, key: &str) -> Result<Vec<Value>> {
        let enough = async || self.seen(topic, key).ok().filter(|seen| seen.len() >= count);
        match until(&format!("{count} events {key} on {topic}"), enough).await {
            Ok(seen) => Ok(seen),
            Err(late) => bail!("{late}; there were {:#?}", self.seen(topic, "")?),
        }
    }
}
