//! The pool of one handler component: warm instances, one event at a time in each, a bound on how many.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc};
use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker};
use whimbrel_pubsub::{
    Caller, HandlerError, HandlerJob, Outcome, PluginKind, PublishError, PublishRequest, SpanKind, Topology, Trace,
    Usage,
};
use whimbrel_resources::HandlerLimits;

use crate::bindings::subscriber::exports::whimbrel::pubsub::handler as wit;
use crate::bindings::subscriber::whimbrel::pubsub as imports;
use crate::bindings::subscriber::{Subscriber, SubscriberPre};
use crate::broker::{Ticking, why};
use crate::engine::Engines;
use crate::error::LoadError;
use crate::grants::Grants;
use crate::loader::{Loader, Plugin};
use crate::log::{Level, PluginLog};
use crate::state::{self, BusyTicks, State};

/// The span of a handler's own publish.
const PUBLISH: &str = "whimbrel:pubsub/publisher.publish";

/// What a handler's pool needs to know.
#[derive(Debug, Clone)]
pub struct HandlerSettings {
    /// The resource's name, for the log.
    pub name: String,
    /// The identity it publishes under.
    pub caller: Caller,
    /// Memory, time, instances.
    pub limits: HandlerLimits,
    /// What runs, for its own publishes.
    pub topology: Arc<ArcSwap<Topology>>,
}

/// Loads a handler component and starts its pool, which ends when nobody holds its queue's other end.
///
/// # Errors
/// The file is no handler.
pub fn start_handler(
    loader: &Loader,
    plugin: &Plugin,
    queue: mpsc::Receiver<HandlerJob>,
    settings: HandlerSettings,
) -> Result<(), LoadError> {
    let usage = settings.topology.load().environment.metrics.usage(PluginKind::Handler, &settings.name);
    let pool = Pool {
        usage,
        engines: loader.engines().clone(),
        pre: prepare(loader, plugin)?,
        permits: Arc::new(Semaphore::new(settings.limits.instances.max(1) as usize)),
        log: PluginLog::new(&settings.name),
        settings,
        idle: Mutex::default(),
    };
    tokio::spawn(Arc::new(pool).run(queue));
    Ok(())
}

fn prepare(loader: &Loader, plugin: &Plugin) -> Result<SubscriberPre<HandlerState>, LoadError> {
    let world = |error: wasmtime::Error| LoadError::World {
        path: PathBuf::clone(&plugin.path),
        world: "subscriber",
        reason: format!("{error:#}"),
    };
    let component = loader.handler(plugin).map_err(|error| match error {
        // An adapter, or a handler of the async world: its functions do not even parse in this engine.
        LoadError::Invalid { reason, .. } if reason.contains("component model async feature") => {
            world(wasmtime::format_err!("it has async functions: {reason}"))
        }
        other => other,
    })?;
    let mut linker = Linker::new(&loader.engines().handlers);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(world)?;
    Subscriber::add_to_linker::<_, HasSelf<HandlerState>>(&mut linker, |state| state).map_err(world)?;
    let pre: InstancePre<HandlerState> = linker.instantiate_pre(&component).map_err(world)?;
    SubscriberPre::new(pre).map_err(world)
}

/// The data of a handler's store.
struct HandlerState {
    state: State,
    caller: Caller,
    topology: Arc<ArcSwap<Topology>>,
    /// The event in hand, whose trace its publishes carry on.
    trace: Trace,
}

impl AsMut<State> for HandlerState {
    fn as_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl wasmtime_wasi::WasiView for HandlerState {
    fn ctx(&mut self) -> wasmtime_wasi::WasiCtxView<'_> {
        self.state.ctx()
    }
}

struct Instance {
    store: Store<HandlerState>,
    guest: Subscriber,
    busy: BusyTicks,
    events: u64,
}

struct Pool {
    engines: Engines,
    /// What all instances take up together.
    usage: Usage,
    pre: SubscriberPre<HandlerState>,
    permits: Arc<Semaphore>,
    log: PluginLog,
    settings: HandlerSettings,
    /// Instances at rest; the last used first, for its memory is warm.
    idle: Mutex<Vec<Instance>>,
}

impl Pool {
    async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<HandlerJob>) {
        while let Some(job) = queue.recv().await {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            let pool = Arc::clone(&self);
            tokio::spawn(async move {
                pool.handle(job).await;
                drop(permit);
            });
        }
    }

    /// Handles one event in an idle instance or a fresh one. Only an instance that answered is used again.
    async fn handle(&self, mut job: HandlerJob) {
        // The policy's own timeout gave up on it while it waited for an instance.
        if job.reply.is_closed() {
            return;
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let instance = match idle {
            Some(instance) => Ok(instance),
            None => self.instantiate().await,
        };
        let result = match instance {
            Err(error) => Err(error),
            Ok(instance) => self.call(instance, &mut job).await,
        };
        // Whoever asked may just have given up on it.
        job.reply.send(result).ok();
    }

    /// A fresh instance. That there is none is no fault of the event.
    async fn instantiate(&self) -> Result<Instance, HandlerError> {
        let memory = usize::try_from(self.settings.limits.memory_bytes).unwrap_or(usize::MAX);
        let data = HandlerState {
            state: State::new(self.log.clone(), Arc::new(Grants::default()), memory, self.usage.clone()),
            caller: self.settings.caller.clone(),
            topology: Arc::clone(&self.settings.topology),
            trace: Trace::default(),
        };
        let (mut store, busy) = state::store(&self.engines.handlers, data, self.settings.limits.deadline);
        let words = store.data().state.last_words.clone();
        let starting = self.ticking(self.pre.instantiate_async(&mut store));
        let reason = match tokio::time::timeout(self.settings.limits.deadline, starting).await {
            Ok(Ok(guest)) => return Ok(Instance { store, guest, busy, events: 0 }),
            Ok(Err(error)) => why(&error, &words.take()),
            Err(_) => "it did not start in time".to_owned(),
        };
        tracing::error!(handler = self.settings.name, "an instance of the handler did not start: {reason}");
        Err(HandlerError::Gone)
    }

    /// Something that runs the handler's code.
    fn ticking<F: Future>(&self, future: F) -> Ticking<'_, F> {
        Ticking { ticker: &self.engines.ticker, usage: &self.usage, future: Box::pin(future) }
    }

    async fn call(&self, mut instance: Instance, job: &mut HandlerJob) -> Result<Outcome, HandlerError> {
        let words = instance.store.data().state.last_words.clone();
        let (event, info) = (event(job), info(job));
        instance.store.data_mut().trace = job.event.trace_under(job.info.trace);
        instance.busy.reset();
        let handler = instance.guest.whimbrel_pubsub_handler();
        let call = handler.call_handle(&mut instance.store, &event, &info);
        let call = self.ticking(call);
        let answered = tokio::select! {
            biased;
            answered = tokio::time::timeout(self.settings.limits.deadline, call) => answered,
            // Another attempt may be on its way: this one ends here, and its instance with it.
            () = job.reply.closed() => return Err(HandlerError::Timeout),
        };
        let answer = match answered {
            Err(_) => return Err(HandlerError::Timeout),
            Ok(Err(error)) => {
                let reason = why(&error, &words.take());
                tracing::warn!(handler = self.settings.name, event = job.event.id(), "the handler trapped: {reason}");
                return Err(HandlerError::Lost(reason));
            }
            Ok(Ok(answer)) => answer,
        };
        instance.events += 1;
        if instance.events < self.settings.limits.events_per_instance {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
        }
        match answer {
            Ok(wit::Outcome::Success) => Ok(Outcome::Success),
            Ok(wit::Outcome::Retry) => Ok(Outcome::Retry),
            Ok(wit::Outcome::Drop) => Ok(Outcome::Drop),
            Err(reason) => Err(HandlerError::Failed(crate::log::cut(&reason))),
        }
    }
}

fn event(job: &HandlerJob) -> wit::Event {
    let event = &job.event;
    wit::Event {
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        type_: event.kind().to_owned(),
        spec_version: event.spec_version().to_owned(),
        data_content_type: event.data_content_type().map(str::to_owned),
        subject: event.subject().map(str::to_owned),
        time: event.time().map(str::to_owned),
        data: event.data().into_owned(),
        extensions: event.extensions(),
    }
}

fn info(job: &HandlerJob) -> wit::DeliveryInfo {
    wit::DeliveryInfo {
        pubsub_name: job.info.pubsub.as_ref().to_owned(),
        topic: job.info.topic.as_ref().to_owned(),
        attempt: job.info.attempt,
        last_attempt: job.info.last_attempt,
        metadata: job.info.metadata.as_ref().clone(),
    }
}

impl imports::types::Host for HandlerState {}
impl imports::events::Host for HandlerState {}

impl imports::log::Host for HandlerState {
    fn write(&mut self, level: imports::log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            imports::log::Level::Debug => Level::Debug,
            imports::log::Level::Info => Level::Info,
            imports::log::Level::Warn => Level::Warn,
            imports::log::Level::Error => Level::Error,
        };
        self.state.log.write(level, &message);
        Ok(())
    }
}

impl imports::publisher::Host for HandlerState {
    async fn publish(
        &mut self,
        pubsub: String,
        topic: String,
        data: Vec<u8>,
        content_type: Option<String>,
        metadata: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<(), imports::publisher::PublishError>> {
        let (topology, mut trace) = (self.topology.load_full(), self.trace.clone());
        let span = topology.environment.tracer.begin(&mut trace, SpanKind::Client, |span| {
            span.name = PUBLISH.into();
            span.set("dapr.api", PUBLISH);
            span.set_topic(&topic);
        });
        let data = data.into();
        let caller = self.caller.clone();
        let request = PublishRequest { caller, pubsub, topic, data, content_type, metadata, trace };
        let result = whimbrel_pubsub::publish(&topology, request).await;
        span.end(|span| span.error = result.as_ref().err().map(ToString::to_string));
        Ok(result.map_err(refusal))
    }
}

fn refusal(error: PublishError) -> imports::publisher::PublishError {
    use imports::publisher::PublishError as Wit;
    let text = error.to_string();
    match error {
        PublishError::NotFound { .. } => Wit::NotFound(text),
        PublishError::Forbidden { .. } => Wit::Forbidden(text),
        PublishError::Broker { .. } => Wit::Failed(text),
        PublishError::CloudEvent { error } => Wit::Invalid(format!("{text}: {error}")),
        PublishError::PubsubEmpty | PublishError::TopicEmpty { .. } | PublishError::RawPayload { .. } => {
            Wit::Invalid(text)
        }
    }
}

impl std::fmt::Debug for HandlerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerState").field("caller", &self.caller).finish_non_exhaustive()
    }
}
