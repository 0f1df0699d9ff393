//! `whimbrel run`, as a list of named steps: load, plan, open, serve, subscribe, wait, drain.

use std::collections::HashMap;
use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whimbrel_api::{App, AppConnection, Doors, Health, Origins};
use whimbrel_pubsub::{Caller, Environment, Handler, Metrics, MetricsOptions, Topology};
use whimbrel_resources::{ApiLogging, Configuration, Snapshot, Surroundings, Text};
use whimbrel_wasm::{Engines, Loader};

use crate::args::RunArguments;
use crate::brokers::{self, PlanError, Started};
use crate::error::Exit;
use crate::handlers::Pool;
use crate::plugins::Search;
use crate::reload::{Declared, Follower, Followers};
use crate::running::{Ground, Running, States};
use crate::traces::Exporting;
use crate::{descriptors, metrics, stop, traces};

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
    if arguments.protocol().is_none() {
        tracing::error!("--app-protocol {} is not spoken here: http, https or h2c", arguments.app_protocol);
        return Exit::Usage;
    }
    if let Some(flag) = arguments.conflict() {
        tracing::error!("the port that {flag} names is the app's (--app-port)");
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
    // From here on SIGHUP does not end the process.
    let Ok(asked) = signal(SignalKind::hangup()) else {
        tracing::error!("signals cannot be watched");
        return Exit::Failed;
    };
    let Some(configuration) = configured(&mut arguments) else { return Exit::Resources };
    let declared = Declared {
        folders: arguments.resources_path.clone(),
        app_id: app_id.clone(),
        denied: configuration.denied_components.clone(),
        look_every: arguments.look_every(),
        follows: configuration.hot_reload.unwrap_or(true),
    };
    let (snapshot, problems) = declared.read();
    if problems.has_errors() {
        return refuse(&problems.to_string());
    }
    for warning in &problems.0 {
        tracing::warn!("{warning}");
    }
    let snapshot = Snapshot { warnings: problems.0, ..snapshot };
    let stopping = CancellationToken::new();
    let at_once = tokio::spawn(stop::watch(stopping.clone()));
    let caller = Caller { app_id: Arc::from(app_id) };
    tokio::select! {
        exit = serve(arguments, caller, Resources { configuration, declared, snapshot, asked }, stopping) => exit,
        exit = at_once => exit.unwrap_or(Exit::Failed),
    }
}

/// What is to be opened, and where other plugins are looked for.
struct Plan {
    planned: Vec<brokers::Planned>,
    search: Arc<Search>,
}

/// What is configured and declared, and what asks for it to be loaded again.
struct Resources {
    configuration: Configuration,
    declared: Declared,
    snapshot: Snapshot,
    /// SIGHUP.
    asked: Signal,
}

/// What `--config` says; `None`: something is wrong with it, and that was said.
fn configured(arguments: &mut RunArguments) -> Option<Configuration> {
    match whimbrel_resources::configuration(&arguments.config, &Surroundings::of_process()) {
        Ok((configuration, warnings)) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            arguments.enable_metrics &= configuration.metrics_enabled.unwrap_or(true);
            Some(configuration)
        }
        Err(problems) => {
            refuse(&problems.to_string());
            None
        }
    }
}

/// Says what is wrong with the resources, all of it.
fn refuse(problems: &str) -> Exit {
    for problem in problems.lines() {
        tracing::error!("{problem}");
    }
    Exit::Resources
}

async fn serve(arguments: RunArguments, caller: Caller, resources: Resources, stopping: CancellationToken) -> Exit {
    let search = Arc::new(Search::new(&arguments.plugins));
    tracing::info!("plugins are looked for in {:?}, then among the built-in ones", search.folders());
    let metrics = counting(&resources.configuration, &caller);
    let planned = match brokers::plan(&resources.snapshot.components, &search, &metrics, |_| false) {
        Ok(planned) => planned,
        Err(PlanError::Resources(problems)) => return refuse(&problems.to_string()),
        Err(PlanError::Plugin(error)) => {
            tracing::error!("{error:#}");
            return Exit::Failed;
        }
    };
    match host(&arguments, caller, resources, metrics, Plan { planned, search }, stopping).await {
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
    caller: Caller,
    resources: Resources,
    metrics: Metrics,
    Plan { planned, search }: Plan,
    stopping: CancellationToken,
) -> anyhow::Result<Exit> {
    let Resources { configuration, declared, snapshot, asked } = resources;
    let engines = Engines::new().map_err(anyhow::Error::msg)?;
    let loader = Loader::new(engines, cache_folder());
    let instance = instance_name();
    let (environment, exporting) = environment(&configuration, &caller, metrics)?;
    let started = tokio::select! { biased;
        started = brokers::start(planned, &loader, &instance, &environment.metrics) => started?,
        // Nothing was subscribed, nothing was taken: there is nothing to drain.
        () = stopping.cancelled() => return Ok(Exit::Drained),
    };
    let followers =
        Followers::new(&snapshot.components, declared.follows, &search, &loader, declared.look_every, &stopping);
    let served = CancellationToken::new();
    metrics::start(arguments, &environment.metrics, &served).await?;
    let topology = Arc::new(ArcSwap::from_pointee(first(environment, &started, &snapshot)));
    let pools = pools(&snapshot, &loader, &topology).await?;
    let states = States::default();
    let health = health(&states);
    let tasks = TaskTracker::new();
    let app = app(arguments, &caller, topology.load().environment.metrics.clone(), &tasks);
    let doors = doors(arguments, configuration, &caller, &topology, &health, app.as_ref());
    let listeners = listen(arguments).await?;
    let server = tokio::spawn(whimbrel_api::serve(listeners, Arc::clone(&doors), served.clone()));
    serve_public(arguments, &doors, &served).await?;
    health.set_outbound(true);

    let reached = reached(app.clone(), Arc::clone(&health), served.clone(), stopping.clone());
    let ask = !arguments.disable_init_endpoints.iter().any(|endpoint| endpoint == "subscribe");
    let ground = Ground {
        caller,
        app,
        ask,
        loader,
        search,
        followers,
        instance,
        topology: Arc::clone(&topology),
        doors: Arc::clone(&doors),
        states,
        tasks: tasks.clone(),
        stopping: stopping.clone(),
    };
    let follower = Follower::new(declared, Running::new(ground, snapshot, started, pools));
    let is_live = || {
        health.set_ready(true);
        tracing::info!("ready");
    };
    tokio::select! { biased;
        () = stopping.cancelled() => {}
        exit = forced(&doors) => return Ok(exit),
        () = doors.shutdown.cancelled() => {}
        () = follower.run(reached, asked, is_live, &stopping) => {}
    }
    stopping.cancel();
    if let Some(wait) = arguments.dapr_block_shutdown_duration.filter(|wait| !wait.is_zero()) {
        tokio::select! { biased;
            exit = forced(&doors) => return Ok(exit),
            () = block(wait, doors.app_health.clone()) => {}
        }
    }
    health.set_ready(false);
    let exit = finish(arguments.shutdown_wait(), drain(tasks, server, &served, &topology)).await;
    if let Some(exporting) = exporting {
        exporting.finish().await;
    }
    Ok(exit)
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
    topology: &ArcSwap<Topology>,
) {
    tasks.close();
    tasks.wait().await;
    served.cancel();
    // A server that panicked has nothing left to drain.
    server.await.ok();
    for broker in topology.load_full().brokers.values() {
        broker.close().await;
    }
}

/// What runs at first.
fn first(environment: Environment, started: &[Started], snapshot: &Snapshot) -> Topology {
    environment.metrics.resiliencies_loaded(&snapshot.resiliencies);
    let named = |started: &Started| (started.broker.declared.name.clone(), started.broker.clone());
    Topology { environment, brokers: started.iter().map(named).collect(), policies: snapshot.policies.clone() }
}

/// The instances of each handler, by its name.
async fn pools(
    snapshot: &Snapshot,
    loader: &Loader,
    topology: &Arc<ArcSwap<Topology>>,
) -> anyhow::Result<HashMap<String, Pool>> {
    let mut pools = HashMap::new();
    for handler in &snapshot.handlers {
        pools.insert(handler.name.clone(), Pool::start(handler, loader, topology).await?);
    }
    Ok(pools)
}

fn health(states: &States) -> Arc<Health> {
    let states = Arc::clone(states);
    Arc::new(Health::new(Box::new(move || {
        states.load().iter().map(|(name, state)| (name.clone(), state.borrow().word().to_owned())).collect()
    })))
}

/// The app, if there is a port, and what delivers to it until nobody has anything for it any more.
fn app(
    arguments: &RunArguments,
    caller: &Caller,
    metrics: Metrics,
    tasks: &TaskTracker,
) -> Option<(Arc<App>, Handler)> {
    let app = App::new(connection(arguments, caller, arguments.app_port?), metrics);
    let (handler, queue, batches) = Handler::with_batches();
    drop(tasks.spawn(Arc::clone(&app).run(queue, batches)));
    let handler = handler.watched(app.health());
    Some((app, handler))
}

/// Waits for the app to listen, if there is one, and where it is asked for its health, to be well. The host is ready without
/// the latter (pubsub-behaviour 6.9).
async fn reached(
    app: Option<(Arc<App>, Handler)>,
    health: Arc<Health>,
    served: CancellationToken,
    stopping: CancellationToken,
) {
    let Some((app, _)) = app else { return };
    tracing::info!("waiting for the app to listen");
    app.wait_reachable(&stopping).await;
    let Some(mut well) = app.health() else { return };
    drop(tokio::spawn(async move { app.watch_health(&served).await }));
    // It says so only if its task is gone, and then the host stops.
    if tokio::time::timeout(FIRST_HEALTH_WAIT, well.wait_for(|well| *well)).await.is_err() {
        tracing::info!("ready, save for the app, which is not well yet");
        health.set_ready(true);
        well.wait_for(|well| *well).await.ok();
    }
}

fn connection(arguments: &RunArguments, caller: &Caller, port: u16) -> AppConnection {
    AppConnection {
        address: arguments.app_channel_address.clone(),
        port,
        // Refused at the start if there is none of that name.
        protocol: arguments.protocol().unwrap_or_default(),
        concurrency_max: usize::try_from(arguments.app_max_concurrency).ok().filter(|max| *max > 0),
        app_id: Arc::clone(&caller.app_id),
        token: env::var("APP_API_TOKEN").ok().filter(|token| !token.is_empty()).map(Text::new),
        // Refused at the start if it is out of bounds.
        probe: arguments.probe().ok().flatten(),
    }
}

fn doors(
    arguments: &RunArguments,
    configuration: Configuration,
    caller: &Caller,
    topology: &Arc<ArcSwap<Topology>>,
    health: &Arc<Health>,
    app: Option<&(Arc<App>, Handler)>,
) -> Arc<Doors> {
    let mut doors = Doors::new(Arc::clone(topology), caller.clone(), Arc::clone(health));
    doors.api_token = env::var("DAPR_API_TOKEN").ok().filter(|token| !token.is_empty()).map(Text::new);
    doors.body_bytes_max = arguments.body_bytes_max();
    doors.http2 = !env::var("DAPR_HTTP_DISABLE_H2C").is_ok_and(|text| is_truthy(&text));
    doors.origins = Origins::parse(&arguments.allowed_origins);
    doors.head_bytes_max = arguments.header_bytes_max();
    // The other half is for brokers, apps and files.
    let sockets = usize::try_from(descriptors::raise_limit() / 2).unwrap_or(usize::MAX);
    doors.connections_max = doors.connections_max.min(sockets.max(1));
    doors.app = arguments.app_port.map(|port| connection(arguments, caller, port));
    doors.app_health = app.and_then(|(app, _)| app.health());
    doors.access = configuration.api;
    let enabled = arguments.enable_api_logging.or(configuration.api_logging.enabled);
    doors.api_logging = ApiLogging { enabled, ..configuration.api_logging };
    doors.enabled_features = if configuration.hot_reload.unwrap_or(true) { vec!["HotReload"] } else { Vec::new() };
    Arc::new(doors)
}

/// What Dapr takes for yes in the environment.
fn is_truthy(text: &str) -> bool {
    ["1", "true", "t", "on", "yes", "y"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
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

/// The machine's own, and who exports its traces.
fn environment(
    configuration: &Configuration,
    caller: &Caller,
    metrics: Metrics,
) -> anyhow::Result<(Environment, Option<Exporting>)> {
    let environment = Environment { metrics, ..Environment::system() };
    let (tracer, exporting) = traces::start(&configuration.tracing, &caller.app_id, &environment)?;
    Ok((Environment { tracer, ..environment }, exporting))
}

/// What is counted, as it is configured; `NAMESPACE` is a label of it, as it is set.
fn counting(configuration: &Configuration, caller: &Caller) -> Metrics {
    let namespace = env::var("NAMESPACE").unwrap_or_default();
    let options = MetricsOptions {
        app_id: caller.app_id.as_ref().to_owned(),
        latency_buckets_ms: configuration.latency_buckets_ms.clone(),
        rules: configuration.metrics_rules.clone(),
        error_codes: configuration.record_error_codes,
        http: configuration.http_metrics.clone(),
    };
    Metrics::with_options(&namespace, &options)
}

/// Names this process among those of the same app; a restart of a component inside it keeps the name.
pub(crate) fn instance_name() -> String {
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
