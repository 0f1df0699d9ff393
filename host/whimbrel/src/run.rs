//! `whimbrel run`, as a list of named steps: load, plan, open, serve, subscribe, wait, drain.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whimbrel_api::{App, AppConnection, Doors, Health, Origins};
use whimbrel_pubsub::{Caller, Environment, Handler, Metrics, Topology};
use whimbrel_resources::{Configuration, Snapshot, Surroundings, Text};
use whimbrel_wasm::{Engines, Loader};

use crate::args::RunArguments;
use crate::brokers::{self, Brokers, PlanError};
use crate::error::Exit;
use crate::plugins::Search;
use crate::{handlers, metrics, reload, stop, subscriptions};

/// How long the answer to a forced shutdown has to reach who asked (pubsub-behaviour 12.3).
const LAST_ANSWER_WAIT: Duration = Duration::from_millis(100);

/// How long being ready waits for the app's first good answer about its health. Longer than one probe takes by default.
const FIRST_HEALTH_WAIT: Duration = Duration::from_secs(1);

/// Runs the host until it is told to stop.
pub(crate) async fn run(mut arguments: RunArguments) -> Exit {
    let Some(app_id) = arguments.app_id.clone().filter(|app_id| !app_id.is_empty() && !app_id.contains('.')) else {
        tracing::error!("--app-id is required, and must not contain dots");
        return Exit::Usage;
    };
    if !arguments.app_protocol.eq_ignore_ascii_case("http") {
        tracing::error!("--app-protocol {} is not supported by this version; use http", arguments.app_protocol);
        return Exit::Usage;
    }
    if let Err(error) = arguments.probe() {
        tracing::error!("{error}");
        return Exit::Usage;
    }
    let ignored = arguments.ignored.given();
    if !ignored.is_empty() {
        tracing::info!("without effect in this version: {}", ignored.join(", "));
    }
    crash_points();
    let surroundings = Surroundings::of_process();
    let configuration = match whimbrel_resources::configuration(&arguments.config, &surroundings) {
        Ok((configuration, warnings)) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            configuration
        }
        Err(problems) => return refuse(&problems.to_string()),
    };
    arguments.enable_metrics &= configuration.metrics_enabled.unwrap_or(true);
    let surroundings = surroundings.deny(&configuration.denied_components);
    let snapshot = match whimbrel_resources::load(&arguments.resources_path, &[&app_id], &surroundings) {
        Ok(snapshot) => snapshot,
        Err(problems) => return refuse(&problems.to_string()),
    };
    for warning in &snapshot.warnings {
        tracing::warn!("{warning}");
    }
    let stopping = CancellationToken::new();
    let at_once = tokio::spawn(stop::watch(stopping.clone()));
    tokio::select! {
        exit = serve(arguments, configuration, Caller { app_id: Arc::from(app_id) }, snapshot, stopping) => exit,
        exit = at_once => exit.unwrap_or(Exit::Failed),
    }
}

/// Says what is wrong with the resources, all of it.
fn refuse(problems: &str) -> Exit {
    for problem in problems.lines() {
        tracing::error!("{problem}");
    }
    Exit::Resources
}

async fn serve(
    arguments: RunArguments,
    configuration: Configuration,
    caller: Caller,
    snapshot: Snapshot,
    stopping: CancellationToken,
) -> Exit {
    let search = Arc::new(Search::new(&arguments.plugins));
    tracing::info!("plugins are looked for in {:?}, then among the built-in ones", search.folders());
    let planned = match brokers::plan(&snapshot, &search) {
        Ok(planned) => planned,
        Err(PlanError::Resources(problems)) => return refuse(&problems.to_string()),
        Err(PlanError::Plugin(error)) => {
            tracing::error!("{error:#}");
            return Exit::Failed;
        }
    };
    match host(&arguments, &configuration, caller, &snapshot, planned, &search, stopping).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!("{error:#}");
            Exit::Failed
        }
    }
}

/// Everything that runs, and its end.
async fn host(
    arguments: &RunArguments,
    configuration: &Configuration,
    caller: Caller,
    snapshot: &Snapshot,
    planned: Vec<brokers::Planned>,
    search: &Arc<Search>,
    stopping: CancellationToken,
) -> anyhow::Result<Exit> {
    let engines = Engines::new().map_err(anyhow::Error::msg)?;
    let loader = Loader::new(engines, cache_folder());
    let instance = instance_name();
    let Brokers { running, states, replaceable } = tokio::select! { biased;
        started = brokers::start(planned, &loader, &instance) => started?,
        // Nothing was subscribed, nothing was taken: there is nothing to drain.
        () = stopping.cancelled() => return Ok(Exit::Drained),
    };
    if configuration.hot_reload.unwrap_or(true) {
        reload::start(replaceable, search, &loader, &stopping);
    }
    let environment = environment(configuration);
    let served = CancellationToken::new();
    metrics::start(arguments, &environment.metrics, &served).await?;
    let closing: Vec<_> = running.values().cloned().collect();
    let topology = Arc::new(ArcSwap::from_pointee(Topology {
        environment,
        brokers: running,
        policies: snapshot.policies.clone(),
    }));
    let handled = handlers::start(snapshot, &loader, &topology)?;
    let health = Arc::new(Health::new(Box::new(move || {
        states.iter().map(|(name, state)| (name.clone(), state.borrow().word().to_owned())).collect()
    })));
    let app = arguments.app_port.map(|port| App::new(connection(arguments, &caller, port)));
    let app_health = app.as_ref().and_then(|app| app.health());
    let doors = doors(arguments, configuration, &caller, snapshot, &topology, &health, app_health.clone());
    let listeners = listen(arguments).await?;
    let server = tokio::spawn(whimbrel_api::serve(listeners, Arc::clone(&doors), served.clone()));
    serve_public(arguments, &doors, &served).await?;
    health.set_outbound(true);

    let tasks = TaskTracker::new();
    let start = async {
        let mut waiting = subscriptions::start(handled, &topology, &tasks, &stopping);
        doors.subscriptions.store(Arc::new(shown(snapshot, &snapshot.subscriptions)));
        if let Some(app) = &app {
            reach(app, &health, &served, &stopping).await;
        }
        let declared = app_subscriptions(arguments, snapshot, app.as_ref()).await;
        doors.subscriptions.store(Arc::new(shown(snapshot, &declared)));
        if let Some(app) = app {
            let (handler, queue) = Handler::new();
            let handler = handler.watched(app.health());
            drop(tasks.spawn(app.run(queue)));
            let subscriptions = subscriptions::for_app(&declared, &topology.load(), &caller, &handler);
            waiting.extend(subscriptions::start(subscriptions, &topology, &tasks, &stopping));
        }
        for ready in waiting {
            // A task that ends without an answer was stopped.
            ready.await.ok();
        }
        health.set_ready(true);
        tracing::info!("ready");
    };
    tokio::select! { biased;
        () = stopping.cancelled() => {}
        exit = forced(&doors) => return Ok(exit),
        () = doors.shutdown.cancelled() => {}
        () = async { start.await; std::future::pending().await } => {}
    }
    stopping.cancel();
    if let Some(wait) = arguments.dapr_block_shutdown_duration.filter(|wait| !wait.is_zero()) {
        tokio::select! { biased;
            exit = forced(&doors) => return Ok(exit),
            () = block(wait, app_health) => {}
        }
    }
    health.set_ready(false);
    Ok(finish(arguments.shutdown_wait(), drain(tasks, server, &served, &closing)).await)
}

/// Waits for the end of what was begun, for so long at most.
async fn finish(wait: Option<Duration>, drained: impl Future<Output = ()>) -> Exit {
    let in_time = match wait {
        None => {
            drained.await;
            true
        }
        Some(wait) => tokio::time::timeout(wait, drained).await.is_ok(),
    };
    if !in_time {
        tracing::error!("Graceful shutdown timeout exceeded, forcing shutdown");
        return Exit::Failed;
    }
    tracing::info!("Daprd shutdown gracefully");
    Exit::Drained
}

/// Ends the process without draining, once somebody has asked for that.
async fn forced(doors: &Doors) -> Exit {
    doors.force_shutdown.cancelled().await;
    tracing::warn!("Force shutdown requested, exiting immediately without graceful shutdown");
    tokio::time::sleep(LAST_ANSWER_WAIT).await;
    Exit::Failed
}

/// Lets publishing go on while nothing is delivered any more (pubsub-behaviour, section 12.5).
async fn block(wait: Duration, app_health: Option<watch::Receiver<bool>>) {
    tracing::info!("Blocking graceful shutdown for {wait:?} or until app reports unhealthy...");
    let ill = async {
        let Some(mut well) = app_health else { return std::future::pending().await };
        if well.wait_for(|well| !*well).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = ill => tracing::info!("App reported unhealthy, entering shutdown..."),
        () = tokio::time::sleep(wait) => tracing::info!("Block shutdown period expired, entering shutdown..."),
    }
}

/// Deliveries first, then the doors, then the brokers: what a handler still publishes finds them open.
async fn drain(
    tasks: TaskTracker,
    server: tokio::task::JoinHandle<()>,
    served: &CancellationToken,
    brokers: &[whimbrel_pubsub::Broker],
) {
    tasks.close();
    tasks.wait().await;
    served.cancel();
    // A server that panicked has nothing left to drain.
    server.await.ok();
    for broker in brokers {
        broker.close().await;
    }
}

/// Waits for the app to listen and, where it is asked for its health, to be well. The host is ready without the latter
/// (pubsub-behaviour 6.9).
async fn reach(app: &Arc<App>, health: &Health, served: &CancellationToken, stopping: &CancellationToken) {
    tracing::info!("waiting for the app to listen");
    app.wait_reachable(stopping).await;
    let Some(mut well) = app.health() else { return };
    let (app, served) = (Arc::clone(app), served.clone());
    drop(tokio::spawn(async move { app.watch_health(&served).await }));
    // It says so only if its task is gone, and then the host stops.
    if tokio::time::timeout(FIRST_HEALTH_WAIT, well.wait_for(|well| *well)).await.is_err() {
        tracing::info!("ready, save for the app, which is not well yet");
        health.set_ready(true);
        well.wait_for(|well| *well).await.ok();
    }
}

/// Asks the app for what it subscribes to. Without a port the declared ones are only shown.
async fn app_subscriptions(
    arguments: &RunArguments,
    snapshot: &Snapshot,
    app: Option<&Arc<App>>,
) -> Vec<Arc<whimbrel_resources::Subscription>> {
    let ask = !arguments.disable_init_endpoints.iter().any(|endpoint| endpoint == "subscribe");
    subscriptions::of_app(snapshot, app.map(AsRef::as_ref), ask).await
}

/// What the metadata API lists: the app's, then the handlers'.
fn shown(
    snapshot: &Snapshot,
    declared: &[Arc<whimbrel_resources::Subscription>],
) -> Vec<Arc<whimbrel_resources::Subscription>> {
    let handlers = snapshot.handlers.iter().flat_map(|handler| handler.subscriptions.iter());
    declared.iter().chain(handlers).cloned().collect()
}

fn connection(arguments: &RunArguments, caller: &Caller, port: u16) -> AppConnection {
    AppConnection {
        address: arguments.app_channel_address.clone(),
        port,
        concurrency_max: usize::try_from(arguments.app_max_concurrency).ok().filter(|max| *max > 0),
        app_id: Arc::clone(&caller.app_id),
        token: env::var("APP_API_TOKEN").ok().filter(|token| !token.is_empty()).map(Text::new),
        // Refused at the start if it is out of bounds.
        probe: arguments.probe().ok().flatten(),
    }
}

fn doors(
    arguments: &RunArguments,
    configuration: &Configuration,
    caller: &Caller,
    snapshot: &Snapshot,
    topology: &Arc<ArcSwap<Topology>>,
    health: &Arc<Health>,
    app_health: Option<watch::Receiver<bool>>,
) -> Arc<Doors> {
    let mut doors = Doors::new(Arc::clone(topology), caller.clone(), Arc::clone(health));
    doors.api_token = env::var("DAPR_API_TOKEN").ok().filter(|token| !token.is_empty()).map(Text::new);
    doors.body_bytes_max = arguments.body_bytes_max();
    doors.origins = Origins::parse(&arguments.allowed_origins);
    doors.head_bytes_max = arguments.header_bytes_max();
    doors.app = arguments.app_port.map(|port| connection(arguments, caller, port));
    doors.app_health = app_health;
    doors.access.clone_from(&configuration.api);
    doors.resiliencies.clone_from(&snapshot.resiliencies);
    Arc::new(doors)
}

/// Serves the public port, if there is to be one, until `stop`.
async fn serve_public(arguments: &RunArguments, doors: &Arc<Doors>, stop: &CancellationToken) -> anyhow::Result<()> {
    let Some(port) = arguments.dapr_public_port else { return Ok(()) };
    let named = arguments.dapr_public_listen_address.as_str();
    let address = if named.is_empty() { "0.0.0.0" } else { named };
    let listener = TcpListener::bind((address.trim_matches(['[', ']']), port)).await;
    let flags = "--dapr-public-port, --dapr-public-listen-address";
    let listener = listener.with_context(|| format!("listening on {address}:{port} ({flags})"))?;
    let at = listener.local_addr().context("asking for the address that is listened on")?;
    tracing::info!("listening public={at} ");
    // It ends with `stop`, or with the process: nothing that is asked here must be waited for.
    drop(tokio::spawn(whimbrel_api::serve_public(listener, Arc::clone(doors), stop.clone())));
    Ok(())
}

/// Listens on each address, and says where.
async fn listen(arguments: &RunArguments) -> anyhow::Result<Vec<TcpListener>> {
    let named = arguments.dapr_listen_addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
    let mut addresses: Vec<&str> = named.collect();
    if addresses.is_empty() {
        addresses.push("0.0.0.0");
    }
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let port = arguments.dapr_http_port;
        // An IPv6 address may stand in brackets, as in a URL.
        let listener = TcpListener::bind((address.trim_matches(['[', ']']), port)).await;
        let listener = listener
            .with_context(|| format!("listening on {address}:{port} (--dapr-http-port, --dapr-listen-addresses)"))?;
        let at: SocketAddr = listener.local_addr().context("asking for the address that is listened on")?;
        tracing::info!("listening http={at} ");
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The machine's own; `NAMESPACE` is a label of what is counted, as it is set.
fn environment(configuration: &Configuration) -> Environment {
    let namespace = env::var("NAMESPACE").unwrap_or_default();
    let metrics = match &*configuration.latency_buckets_ms {
        [] => Metrics::new(&namespace),
        buckets => Metrics::with_buckets(&namespace, buckets),
    };
    Environment { metrics, ..Environment::system() }
}

/// Names this process among those of the same app; a restart of a component inside it keeps the name.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{:032x}", host.trim(), Environment::system().random.bits())
}

/// Where compiled code is kept: `WHIMBREL_CACHE`, else the user's cache folder. Without either, nowhere.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("WHIMBREL_CACHE") {
        return Some(PathBuf::from(folder));
    }
    let user = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    user.filter(|folder| folder.is_absolute()).map(|folder| folder.join("whimbrel"))
}

/// For the tests of what survives: `WHIMBREL_CRASH_AT=step[:nth]` ends the process there, as a power cut would.
fn crash_points() {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static POINT: OnceLock<(String, AtomicU64)> = OnceLock::new();
    let Ok(point) = env::var("WHIMBREL_CRASH_AT") else { return };
    let (step, nth) = point.split_once(':').unwrap_or((&point, "1"));
    let nth = nth.parse().unwrap_or(1);
    POINT.set((step.to_owned(), AtomicU64::new(nth))).ok();
    whimbrel_pubsub::on_step(|passed| {
        if let Some((step, left)) = POINT.get()
            && step == passed
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    });
}
