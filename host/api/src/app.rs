//! An ordinary HTTP app: events go to it as requests, its answers become outcomes. Made by the binary, which runs
//! [`App::run`] on the queue of the app's `Handler`. Absent on purpose: retries of its own (the policy's), timeouts of
//! its own (the policy's), and what an outcome leads to (`settle`'s).

mod answer;
mod batch;
mod dial;
mod discovery;
mod lane;
mod probe;
mod request;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use whimbrel_pubsub::{Attempts, BatchJob, HandlerError, HandlerJob, Metrics, Outcome, Random, Sent};
use whimbrel_resources::{Policy, Text};

use crate::http::trace_header;
use crate::path;
use dial::Dial;
use lane::{Lane, Reply};
use request::Fixed;

pub use dial::AppProtocol;
pub use discovery::DiscoveryError;
pub use probe::{Probe, ProbeError};

/// Requests to one app at the same time, and so connections to it, whatever `--app-max-concurrency` says.
const REQUESTS_MAX: usize = 1024;

/// Connections kept open for later.
const IDLE_LANES_MAX: usize = 64;

/// How long opening a connection may take.
const DIAL_WAIT: Duration = Duration::from_secs(10);

/// How long one look at whether the app listens may take (pubsub-behaviour 5.7).
const REACH_WAIT: Duration = Duration::from_millis(500);

/// How long until the next look (pubsub-behaviour 5.7).
const REACH_INTERVAL: Duration = Duration::from_millis(100);

/// How the app is reached.
#[derive(Debug, Clone)]
pub struct AppConnection {
    /// Host name or address: `--app-channel-address`.
    pub address: String,
    /// `--app-port`.
    pub port: u16,
    /// `--app-protocol`.
    pub protocol: AppProtocol,
    /// `--app-max-concurrency`: requests at the same time. `None`: as many as 1024.
    pub concurrency_max: Option<usize>,
    /// The app's id, which it is told when it is asked for its subscriptions.
    pub app_id: Arc<str>,
    /// `APP_API_TOKEN`: what the app is shown as `dapr-api-token`.
    pub token: Option<Text>,
    /// How its health is asked for. `None`: it is taken to be well.
    pub probe: Option<Probe>,
}

/// The client of one app.
#[derive(Debug)]
pub struct App {
    connection: AppConnection,
    fixed: Fixed,
    metrics: Metrics,
    dial: Dial,
    /// Open connections that nobody uses, the last used one on top.
    idle: Mutex<Vec<Lane>>,
    /// Whether it is well, as far as is known.
    well: watch::Sender<bool>,
}

impl App {
    /// A client, whose requests are counted; connects to nothing yet.
    #[must_use]
    pub fn new(connection: AppConnection, metrics: Metrics) -> Arc<Self> {
        let host = format!("{}:{}", connection.address, connection.port);
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let token = connection.token.as_ref().and_then(|token| value(token.reveal())).map(|mut token| {
            token.set_sensitive(true);
            token
        });
        let host = value(&host).unwrap_or(HeaderValue::from_static("localhost"));
        let well = watch::Sender::new(connection.probe.is_none());
        let dial = Dial::new(&connection);
        Arc::new(Self { connection, fixed: Fixed { host, token }, metrics, dial, idle: Mutex::default(), well })
    }

    /// Waits until the app's port takes connections. `false`: `stop` came first.
    pub async fn wait_reachable(&self, stop: &CancellationToken) -> bool {
        let reached = async {
            while !matches!(timeout(REACH_WAIT, dial::plain(&self.connection)).await, Ok(Ok(_))) {
                sleep(REACH_INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = reached => true,
        }
    }

    /// Whether it is well, from now on. `None`: nobody asks.
    #[must_use]
    pub fn health(&self) -> Option<watch::Receiver<bool>> {
        self.connection.probe.is_some().then(|| self.well.subscribe())
    }

    /// Asks for the app's health until `stop`, if that is to be done.
    pub async fn watch_health(&self, stop: &CancellationToken) {
        let Some(probe) = &self.connection.probe else { return };
        let request = || request::health(&self.fixed, &probe.path);
        let ask = || async {
            let reply = self.ask(self.metrics.probes(), request, answer::BODY_BYTES_MAX).await;
            reply.is_ok_and(|reply| reply.status.is_success())
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = probe.watch(ask, &self.well) => {}
        }
    }

    /// What the app answers to `GET /dapr/subscribe`; `None`: it has nothing to say (404, an empty answer, an error
    /// status). Transport errors are tried again as the policy says, for a quarter of an hour at most (pubsub-behaviour 5.2).
    ///
    /// # Errors
    /// The app could not be asked, or answered more than 4 MiB.
    pub async fn subscriptions(&self, policy: &Policy) -> Result<Option<Bytes>, DiscoveryError> {
        let random = Random::system();
        let (begun, mut attempts) = (Instant::now(), Attempts::new(policy, &random));
        loop {
            let asked = timeout(discovery::ANSWER_WAIT, self.ask_subscriptions()).await;
            let error = match asked.unwrap_or_else(|_| Err(DiscoveryError::Transport("no answer in time".into()))) {
                Err(DiscoveryError::Transport(error)) => error,
                done => return done,
            };
            let in_time = |wait: &Duration| begun.elapsed().saturating_add(*wait) <= discovery::ASKING_MAX;
            let Some(wait) = attempts.advance().filter(in_time) else { return Err(DiscoveryError::Transport(error)) };
            tracing::warn!(%error, ?wait, "cannot ask the app for its subscriptions, trying again");
            sleep(wait).await;
        }
    }

    async fn ask_subscriptions(&self) -> Result<Option<Bytes>, DiscoveryError> {
        let request = || Some(request::subscriptions(&self.fixed, &self.connection.app_id));
        let sent = self.metrics.sends("GET", request::SUBSCRIBE_PATH, 0);
        let reply = self.ask(sent, request, discovery::ANSWER_BYTES_MAX).await;
        discovery::interpret(&reply.map_err(DiscoveryError::Transport)?)
    }

    /// Delivers what comes out of the queues until they are closed, and returns when the last delivery is answered.
    pub async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<HandlerJob>, mut batches: mpsc::Receiver<BatchJob>) {
        let concurrency = self.connection.concurrency_max.unwrap_or(REQUESTS_MAX).clamp(1, REQUESTS_MAX);
        let room = Arc::new(Semaphore::new(concurrency));
        let mut deliveries = JoinSet::new();
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            // What has ended is taken out at once: there are never more tasks in the set than permits, plus one round.
            while deliveries.try_join_next().is_some() {}
            let app = Arc::clone(&self);
            tokio::select! {
                Some(job) = queue.recv() => deliveries.spawn(async move {
                    app.deliver(job).await;
                    drop(permit);
                }),
                Some(batch) = batches.recv() => deliveries.spawn(async move {
                    app.deliver_batch(batch).await;
                    drop(permit);
                }),
                else => break,
            };
        }
        while deliveries.join_next().await.is_some() {}
    }

    /// One event; given up as soon as nobody waits for its outcome.
    async fn deliver(&self, job: HandlerJob) {
        let HandlerJob { event, info, mut reply } = job;
        if !*self.well.borrow() {
            // Nobody waits any more: the broker delivers again.
            reply.send(Err(HandlerError::Unwell)).ok();
            return;
        }
        let path = path::clean_target(&info.path);
        let trace = info.trace.as_ref().map(trace_header);
        let request = || request::event(&self.fixed, &path, &info, event.body(), trace.clone());
        let sent = self.metrics.sends("POST", without_query(&path), event.body().len() as u64);
        let outcome = tokio::select! {
            biased;
            () = reply.closed() => return,
            answered = self.ask(sent, request, answer::BODY_BYTES_MAX) => {
                answered.map_err(HandlerError::Transport).and_then(|answered| answer::interpret(&answered))
            }
        };
        if matches!(outcome, Ok(Outcome::Drop) | Err(HandlerError::Status(404))) {
            let (topic, id) = (&info.topic, event.id());
            tracing::warn!(pubsub = %info.pubsub, %topic, %path, id, "the app dropped an event or has no such route");
        }
        // Nobody waits any more: the broker delivers again.
        reply.send(outcome).ok();
    }

    /// Several events in one request.
    async fn deliver_batch(&self, job: BatchJob) {
        let BatchJob { entries, info, mut reply } = job;
        if !*self.well.borrow() {
            // Nobody waits any more: the broker delivers again.
            reply.send(Err(HandlerError::Unwell)).ok();
            return;
        }
        let path = path::clean_target(&info.path);
        let body = batch::body(&entries, &info);
        let (trace, attempt) =
            (info.trace.as_ref().map(trace_header), entries.iter().map(|entry| entry.attempt).max().unwrap_or(1));
        let request = || request::batch(&self.fixed, &path, &info, attempt, &body, trace.clone());
        let sent = self.metrics.sends("POST", without_query(&path), body.len() as u64);
        let outcomes = tokio::select! {
            biased;
            () = reply.closed() => return,
            answered = self.ask(sent, request, answer::BODY_BYTES_MAX) => {
                answered.map_err(HandlerError::Transport).and_then(|answered| batch::interpret(&answered, &entries))
            }
        };
        let dropped = match &outcomes {
            Err(HandlerError::Status(404)) => entries.len(),
            outcomes => outcomes.iter().flatten().filter(|outcome| **outcome == Ok(Outcome::Drop)).count(),
        };
        if dropped > 0 {
            let (topic, events) = (&info.topic, entries.len());
            tracing::warn!(pubsub = %info.pubsub, %topic, %path, dropped, events, "the app dropped events of a batch or has no such route");
        }
        // Nobody waits any more: the broker delivers again.
        reply.send(outcomes).ok();
    }

    /// The same as `exchange`, counted. Given up, it counts as one without an answer.
    async fn ask<F>(&self, sent: Sent<'_>, request: F, body_bytes_max: usize) -> Result<Reply, String>
    where
        F: Fn() -> Option<Request<Full<Bytes>>>,
    {
        let reply = self.exchange(request, body_bytes_max).await?;
        sent.answered(reply.status.as_u16(), reply.body.len() as u64);
        Ok(reply)
    }

    /// Sends a request on an idle connection or a new one, and reads the answer. A connection that was idle may have been
    /// closed by the app at that very moment; then the request goes out once more, on a new one. (The app may have seen
    /// it twice; at least once is what it is promised.)
    async fn exchange<F>(&self, request: F, body_bytes_max: usize) -> Result<Reply, String>
    where
        F: Fn() -> Option<Request<Full<Bytes>>>,
    {
        let request = || request().ok_or_else(|| "the route is no valid path".to_owned());
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut lane) = idle {
            match lane.exchange(request()?, body_bytes_max).await {
                Ok(reply) => {
                    self.keep(lane);
                    return Ok(reply);
                }
                Err(error) if error.is_unanswered() => tracing::debug!(%error, "an idle connection was closed"),
                Err(error) => return Err(error.to_string()),
            }
        }
        let dialled = timeout(DIAL_WAIT, self.dial()).await.map_err(|_| "the app takes no connection".to_owned())?;
        let mut lane = dialled?;
        let reply = lane.exchange(request()?, body_bytes_max).await.map_err(|error| error.to_string())?;
        self.keep(lane);
        Ok(reply)
    }

    async fn dial(&self) -> Result<Lane, String> {
        let stream =
            self.dial.stream(&self.connection).await.map_err(|error| format!("cannot connect to the app: {error}"))?;
        Lane::open(stream, self.connection.protocol).await.map_err(|error| error.to_string())
    }

    fn keep(&self, lane: Lane) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if lane.is_open() && idle.len() < IDLE_LANES_MAX {
            idle.push(lane);
        }
    }
}

fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

#[cfg(test)]
mod tests;
