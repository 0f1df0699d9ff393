//! A host process of one test: its resources, its start, its end, its log. Called by nearly every test.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::app::App;
use super::scene::{Test, build_folder};
use super::{http, until};

/// How long a host may take to finish what is in flight when it is stopped, unless a test says otherwise: its own 5 s are
/// too short for a slow machine. Below what its end is waited for.
const GRACE: [&str; 2] = ["--dapr-graceful-shutdown-seconds", "45"];

/// How a host is to be started. Made by [`Test::host`], kept by the [`Host`] for the next start.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan {
    folder: PathBuf,
    app_id: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    resources: usize,
}

/// The program.
pub(crate) fn whimbrel() -> Result<PathBuf> {
    let binary = build_folder()?.join("whimbrel");
    ensure!(binary.exists(), "{} is missing: run `cargo build -p whimbrel`", binary.display());
    Ok(binary)
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// All it wrote.
    pub(crate) log: String,
}

/// A running host.
#[derive(Debug)]
pub(crate) struct Host {
    plan: HostPlan,
    child: Child,
    log: PathBuf,
    starts: u32,
    address: watch::Sender<Option<SocketAddr>>,
}

impl Test {
    /// A host for an app, with nothing declared yet.
    pub(crate) fn host(&self, app_id: &str) -> Result<HostPlan> {
        let folder = self.folder(&format!("host-{app_id}"))?;
        std::fs::create_dir(folder.join("resources"))?;
        Ok(HostPlan { folder, app_id: app_id.into(), arguments: vec![], environment: vec![], resources: 0 })
    }
}

impl HostPlan {
    /// Declares resources: a file of one or more YAML documents, in the order of the calls.
    pub(crate) fn resource(mut self, yaml: impl AsRef<str>) -> Result<Self> {
        let name = format!("{:02}.yaml", self.resources);
        self.resources += 1;
        self.file(&name, yaml.as_ref())?;
        Ok(self)
    }

    /// Declares something else in the place of an earlier resource, counted from 0.
    pub(crate) fn resource_instead(self, place: usize, yaml: &str) -> Result<Self> {
        self.file(&format!("{place:02}.yaml"), yaml)?;
        Ok(self)
    }

    /// Puts a file beside the resources.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.folder.join("resources").join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// Delivers to this app.
    pub(crate) fn app(self, app: &App) -> Self {
        self.app_port(app.port())
    }

    /// Delivers to whatever listens on this port.
    pub(crate) fn app_port(self, port: u16) -> Self {
        self.flag("--app-port", &port.to_string())
    }

    /// Adds a flag and its value.
    pub(crate) fn flag(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        let mut changed = self.without_env(name);
        changed.environment.push((name.into(), value.into()));
        changed
    }

    /// Leaves a variable of the environment out again.
    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Starts it, and returns when it is ready.
    pub(crate) async fn start(self) -> Result<Host> {
        let mut host = self.launch()?;
        host.ready().await?;
        Ok(host)
    }

    /// Starts it, and returns at once.
    pub(crate) fn launch(self) -> Result<Host> {
        let log = self.folder.join("host-0.log");
        let child = self.spawn(&log)?;
        Ok(Host { plan: self, child, log, starts: 1, address: watch::Sender::new(None) })
    }

    /// Starts it, and returns when it has ended by itself.
    pub(crate) async fn run_to_the_end(self) -> Result<Ended> {
        self.launch()?.ended().await
    }

    fn spawn(&self, log: &PathBuf) -> Result<Child> {
        let binary = whimbrel()?;
        let output = File::create(log)?;
        Command::new(binary)
            .args(["run", "--app-id", &self.app_id, "--dapr-http-port", "0", "--dapr-grpc-port", "0"])
            .args(["--metrics-port", "0", "--metrics-listen-address", "127.0.0.1"])
            .args(["--dapr-listen-addresses", "127.0.0.1", "--resources-path"])
            .arg(self.folder.join("resources"))
            .args(GRACE.iter().filter(|_| !self.arguments.iter().any(|argument| argument == GRACE[0])))
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NO_COLOR", "1")
            // All tests compile a plugin once. It stands outside any test's own folder on purpose.
            .env("WHIMBREL_CACHE", build_folder()?.with_file_name("test-cache"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("starting the host")
    }
}

impl Host {
    /// Where its HTTP API listens.
    pub(crate) fn http(&self) -> Result<SocketAddr> {
        let address = *self.address.borrow();
        address.context("the host does not listen")
    }

    /// Where its HTTP API listens, from start to start; `None` while it is down.
    pub(crate) fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// Waits until it listens, ready or not.
    pub(crate) async fn listening(&mut self) -> Result<SocketAddr> {
        let what = format!("the host to listen ({})", self.log.display());
        let found = until(&what, async || match (self.listens_at(), self.child.try_wait()) {
            (Some(address), _) => Some(Ok(address)),
            (None, Ok(None)) => None,
            (None, ended) => Some(Err(ended)),
        });
        match found.await? {
            Ok(address) => Ok(address),
            Err(ended) => bail!("the host ended instead of listening: {ended:?}\n{}", self.log()?),
        }
    }

    /// Waits until it is ready: subscribed and listening.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let address = self.listening().await?;
        let what = format!("the host to be ready ({})", self.log.display());
        until(&what, async || {
            let answer = http::get(address, "/v1.0/healthz").await.ok()?;
            (answer.status == 204).then_some(())
        })
        .await?;
        self.address.send_replace(Some(address));
        Ok(())
    }

    /// Everything this start has written so far.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> Result<Ended> {
        let what = format!("the host to end ({})", self.log.display());
        let status = until(&what, async || self.child.try_wait().ok().flatten()).await?;
        self.address.send_replace(None);
        Ok(Ended { code: status.code(), log: self.log()? })
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<Ended> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// The most memory it has had in use at a time, bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let id = self.child.id().context("the host has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.context("the host has ended")?, signal)?;
        Ok(())
    }

    /// Kills it: nothing of it runs any further.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.address.send_replace(None);
        self.child.kill().await?;
        Ok(())
    }

    /// Starts it once more, as planned but for what this changes, and waits until it is ready.
    pub(crate) async fn start_again(&mut self, change: impl FnOnce(HostPlan) -> HostPlan) -> Result<()> {
        self.plan = change(self.plan.clone());
        self.log = self.plan.folder.join(format!("host-{}.log", self.starts));
        self.starts += 1;
        self.child = self.plan.spawn(&self.log)?;
        self.ready().await
    }

    /// The line `listening http=ADDRESS` of its log.
    fn listens_at(&self) -> Option<SocketAddr> {
        let log = self.log().ok()?;
        let (_, rest) = log.lines().find_map(|line| line.split_once("listening http="))?;
        rest.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).next()?.parse().ok()
    }
}
