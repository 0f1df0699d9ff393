//! `whimbrel subscribe`: tails a topic in the terminal, as a subscriber of its own. It runs the declared adapter in this
//! process with one subscription, takes every event, and tells what became of each.

mod tail;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whimbrel_pubsub::{
    Broker, Caller, Environment, Handler, HandlerJob, Live, Outcome, Subscription, Topology, deliver,
};
use whimbrel_resources::{Origin, Policies, Snapshot, Subscription as Declared, Surroundings};
use whimbrel_wasm::{Engines, Loader};

use crate::brokers::{self, PlanError};
use crate::error::Exit;
use crate::plugins::Search;
use crate::{run, stop, telemetry};
use tail::{Fates, Tail};

pub(crate) use tail::TARGET as TOLD;

/// How long stopping may take: an acknowledgement on its way, and the broker's goodbye.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// The adapter that no other process shares.
const IN_MEMORY: &str = "pubsub.in-memory";

/// The flags of `whimbrel subscribe`.
#[derive(Debug, Clone, clap::Args)]
pub struct SubscribeArguments {
    /// The component.
    #[arg(long)]
    pub pubsub: String,
    /// The topic.
    #[arg(long)]
    pub topic: String,
    /// A folder with resources (YAML), the component among them. May be given several times.
    #[arg(long, required = true)]
    pub resources_path: Vec<PathBuf>,
    /// A folder with plugins, looked in first. May be given several times.
    #[arg(long)]
    pub plugins: Vec<PathBuf>,
    /// Who subscribes, as far as scopes go. Without it a name that nobody else has.
    #[arg(long)]
    pub app_id: Option<String>,
    /// The consumer group. Without it one that nobody else has, so that every message comes here and is taken from
    /// nobody; some brokers keep it after the end. Members of one group share the messages.
    #[arg(long)]
    pub group: Option<String>,
    /// Metadata of the subscription: NAME=VALUE, such as rawPayload=true. May be given several times.
    #[arg(long, value_parser = crate::publish::pair)]
    pub metadata: Vec<(String, String)>,
    /// Ends after so many events.
    #[arg(long)]
    pub max: Option<u64>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// What the host and the adapter log, on the standard error: off, error, warn, info, debug.
    #[arg(long, default_value = "warn")]
    pub log_level: String,
}

/// Tails the topic until it is told to stop.
pub(crate) fn answer(arguments: &SubscribeArguments) -> Exit {
    let stopping = CancellationToken::new();
    let tail = Arc::new(Tail::new(arguments.json, arguments.max, stopping.clone()));
    if let Err(error) = telemetry::start_beside(&arguments.log_level, Fates(Arc::clone(&tail))) {
        return refuse(&error, Exit::Usage);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&anyhow!(error).context("starting the runtime"), Exit::Failed),
    };
    let exit = runtime.block_on(async {
        let at_once = tokio::spawn(stop::watch(stopping.clone()));
        tokio::select! {
            ended = subscribe(arguments, &tail, &stopping) => match ended {
                Ok(()) => Exit::Drained,
                Err(error) => refuse(&error, if error.is::<Resources>() { Exit::Resources } else { Exit::Failed }),
            },
            exit = at_once => exit.unwrap_or(Exit::Failed),
        }
    });
    // An adapter that will not end is left behind.
    runtime.shutdown_background();
    exit
}

fn refuse(error: &anyhow::Error, exit: Exit) -> Exit {
    writeln!(std::io::stderr(), "{error:#}").ok();
    exit
}

/// The resources are wrong; all that is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Resources(String);

async fn subscribe(arguments: &SubscribeArguments, tail: &Arc<Tail>, stopping: &CancellationToken) -> Result<()> {
    let own = format!("tail-{:016x}", Environment::system().random.bits() >> 64);
    let app_id = arguments.app_id.clone().unwrap_or_else(|| own.clone());
    let group = arguments.group.clone().unwrap_or(own);
    let search = Search::new(&arguments.plugins);
    let snapshot = declared(arguments, &app_id)?;
    let environment = Environment::system();
    let planned =
        brokers::plan(&snapshot.components, &search, &environment.metrics, |_| false).map_err(|error| match error {
            PlanError::Resources(problems) => Resources(problems.to_string()).into(),
            PlanError::Plugin(error) => error,
        })?;
    let engines = Engines::new().map_err(anyhow::Error::msg)?;
    let loader = Loader::new(engines, run::cache_folder());
    let instance = run::instance_name();
    let started = tokio::select! { biased;
        started = brokers::start(planned, &loader, &instance, &environment.metrics) => started?,
        () = stopping.cancelled() => return Ok(()),
    };
    let opened: Vec<Broker> = started.iter().map(|one| one.broker.clone()).collect();
    let running = opened.iter().map(|broker| (broker.declared.name.clone(), broker.clone())).collect();
    let topology = Topology { environment, brokers: running, policies: Policies::default() };
    let topology = Arc::new(ArcSwap::from_pointee(topology));
    let (handler, queue) = Handler::new();
    let subscription = subscription(arguments, Caller { app_id: Arc::from(app_id.as_str()) }, group.clone(), handler);
    let tasks = TaskTracker::new();
    let taking = tokio::spawn(take(queue, Arc::clone(tail)));
    let (ready, is_live) = oneshot::channel();
    let live = Arc::new(Live::new(subscription));
    drop(tasks.spawn(deliver(live, Arc::clone(&topology), ready, stopping.clone())));
    // One that ends without an answer was stopped.
    is_live.await.ok();
    if tail.refused().is_none() && !stopping.is_cancelled() {
        let SubscribeArguments { pubsub, topic, .. } = arguments;
        let ends = "Ctrl-C ends";
        writeln!(std::io::stderr(), "subscribed to {topic} of {pubsub} as {app_id}, group {group}; {ends}").ok();
    }
    stopping.cancelled().await;
    let drained = tokio::time::timeout(DRAIN_WAIT, drain(tasks, &opened)).await;
    taking.abort();
    match tail.refused() {
        Some(why) => Err(anyhow!(why)),
        None => drained.map_err(|_| anyhow!("stopping took longer than {DRAIN_WAIT:?}")),
    }
}

/// The component alone: its other resources belong to others.
fn declared(arguments: &SubscribeArguments, app_id: &str) -> Result<Snapshot> {
    let loaded = whimbrel_resources::load(&arguments.resources_path, &[app_id], &Surroundings::of_process());
    let mut snapshot = loaded.map_err(|problems| Resources(problems.to_string()))?;
    let known: Vec<&str> = snapshot.components.iter().map(|component| component.name.as_str()).collect();
    if !known.contains(&arguments.pubsub.as_str()) {
        let (pubsub, known) = (&arguments.pubsub, known.join(", "));
        let hint = "one with scopes needs --app-id";
        bail!("--pubsub {pubsub}: there is no such component for {app_id} ({hint}); there are: {known}");
    }
    snapshot.components.retain(|component| component.name == arguments.pubsub);
    if snapshot.components.iter().any(|component| component.kind == IN_MEMORY) {
        writeln!(std::io::stderr(), "{IN_MEMORY} lives in this process: nothing that others publish comes here").ok();
    }
    snapshot.handlers.clear();
    Ok(snapshot)
}

/// A component's own consumerID is for the app that it was written for, so the group is ours in any case.
fn subscription(arguments: &SubscribeArguments, caller: Caller, group: String, handler: Handler) -> Subscription {
    let declared = Declared {
        name: String::new(),
        pubsub: arguments.pubsub.clone(),
        topic: arguments.topic.clone(),
        rules: Vec::new(),
        default_route: Some(String::new()),
        dead_letter_topic: None,
        metadata: arguments.metadata.clone(),
        bulk: None,
        scopes: Vec::new(),
        origin: Origin::Handler,
    };
    Subscription { declared: Arc::new(declared), caller, group, handler }
}

/// Takes every event, up to the last that is wanted. One too many is not answered: the broker keeps it.
async fn take(mut queue: mpsc::Receiver<HandlerJob>, tail: Arc<Tail>) {
    while let Some(job) = queue.recv().await {
        if tail.note(&job.event, &job.info) {
            // Whoever asked may have stopped.
            job.reply.send(Ok(Outcome::Success)).ok();
        }
    }
}

async fn drain(tasks: TaskTracker, brokers: &[Broker]) {
    tasks.close();
    tasks.wait().await;
    for broker in brokers {
        broker.close().await;
    }
}
