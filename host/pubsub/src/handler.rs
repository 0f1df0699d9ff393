//! The handle to whatever receives events: a component's pool, an app behind HTTP. Called by `deliver` only.
//!
//! Batches have a queue of their own, and only a worker that takes them has it: a component gets its events one by one.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::broker::Metadata;
use crate::error::HandlerError;
use crate::event::Event;
use crate::trace::TraceParent;

/// How many events, and how many batches, may wait for one handler. What bounds them is each subscription's `max_unsettled`.
const HANDLER_QUEUE_JOBS_MAX: usize = 1024;

/// What the subscriber said of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Try again, as the policy says.
    Retry,
    /// Never again.
    Drop,
    /// Never again, and no dead letter either: the app takes no batches where this one was to go (pubsub-behaviour 6.3), or
    /// answered what its subscription drops.
    Unserved,
}

/// How an event comes to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryInfo {
    /// The broker's name.
    pub pubsub: Arc<str>,
    /// The topic the message came from, without the namespace prefix.
    pub topic: Arc<str>,
    /// The route that was selected: a path for an HTTP app, ignored by components.
    pub path: Arc<str>,
    /// 1 for the first attempt, counted across the host's retries and the broker's redeliveries.
    pub attempt: u32,
    /// No attempt follows this one within the delivery.
    pub last_attempt: bool,
    /// The message's metadata.
    pub metadata: Arc<Metadata>,
    /// What the handler is told of the event's trace: the span of this attempt, where spans are recorded, else what the
    /// event says. [`TraceParent::NONE`]: the event has none. None: nothing is said.
    pub trace: Option<TraceParent>,
}

/// One event for a handler. Dropping `reply` unanswered means that the worker was lost.
#[derive(Debug)]
pub struct HandlerJob {
    /// The event.
    pub event: Arc<Event>,
    /// How it came.
    pub info: DeliveryInfo,
    /// What the handler said.
    pub reply: oneshot::Sender<Result<Outcome, HandlerError>>,
}

/// One event of a batch.
#[derive(Debug, Clone)]
pub struct BatchEntry {
    /// Names it in its batch.
    pub id: Uuid,
    /// The event.
    pub event: Arc<Event>,
    /// 1 for the first attempt, counted as in [`DeliveryInfo`].
    pub attempt: u32,
    /// The message's metadata.
    pub metadata: Arc<Metadata>,
}

/// How a batch comes to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchInfo {
    /// Names this request.
    pub id: Uuid,
    /// The broker's name.
    pub pubsub: Arc<str>,
    /// The topic that is subscribed to: with wildcards the messages may come from several.
    pub topic: Arc<str>,
    /// The route that all of the events take.
    pub path: Arc<str>,
    /// No attempt follows this one within the delivery.
    pub last_attempt: bool,
    /// The messages are no events, and the subscriber wants their bytes as they are.
    pub raw: bool,
    /// What the handler is told of the trace, as in [`DeliveryInfo`]. That of one of many events would be a lie about the
    /// others, so they have [`TraceParent::NONE`].
    pub trace: Option<TraceParent>,
}

/// What the handler said of each event of a batch, in their order.
pub type Outcomes = Vec<Result<Outcome, HandlerError>>;

/// Several events for a handler at a time. Dropping `reply` unanswered means that the worker was lost.
#[derive(Debug)]
pub struct BatchJob {
    /// The events: at least one.
    pub entries: Vec<BatchEntry>,
    /// How they came.
    pub info: BatchInfo,
    /// What the handler said, or why it said nothing of any of them.
    pub reply: oneshot::Sender<Result<Outcomes, HandlerError>>,
}

/// A cheap handle to whatever receives events for one app.
#[derive(Debug, Clone)]
pub struct Handler {
    jobs: mpsc::Sender<HandlerJob>,
    batches: Option<mpsc::Sender<BatchJob>>,
    /// Whether it is well. None: nobody watches, so it is.
    well: Option<watch::Receiver<bool>>,
}

impl Handler {
    /// A handle, and the queue its worker drains. It gets events one by one, whatever a subscription says.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<HandlerJob>) {
        let (jobs, queue) = mpsc::channel(HANDLER_QUEUE_JOBS_MAX);
        (Self { jobs, batches: None, well: None }, queue)
    }

    /// A handle to a worker that takes batches, too, and the queues of both.
    #[must_use]
    pub fn with_batches() -> (Self, mpsc::Receiver<HandlerJob>, mpsc::Receiver<BatchJob>) {
        let (one_by_one, queue) = Self::new();
        let (batches, batch_queue) = mpsc::channel(HANDLER_QUEUE_JOBS_MAX);
        (Self { batches: Some(batches), ..one_by_one }, queue, batch_queue)
    }

    /// The same, of somebody who may fall ill: its subscriptions end while this says `false`, and begin again after it.
    #[must_use]
    pub fn watched(self, well: Option<watch::Receiver<bool>>) -> Self {
        Self { well, ..self }
    }

    /// Whether its worker takes batches.
    #[must_use]
    pub fn takes_batches(&self) -> bool {
        self.batches.is_some()
    }

    /// Whether both are handles to the same.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.jobs.same_channel(&other.jobs)
    }

    /// Returns once it is well, or not at all. Whoever waits keeps no handle to it.
    pub(crate) fn well(&self) -> impl Future<Output = ()> + use<> {
        until(self.well.clone(), true)
    }

    /// Returns once it is ill, or not at all. Whoever waits keeps no handle to it.
    pub(crate) fn ill(&self) -> impl Future<Output = ()> + use<> {
        until(self.well.clone(), false)
    }

    /// Delivers one event and waits for what the subscriber says. Deadlines are the policy's, and the worker's own.
    ///
    /// # Errors
    /// Anything but an outcome; see [`HandlerError`].
    pub async fn deliver(&self, event: Arc<Event>, info: DeliveryInfo) -> Result<Outcome, HandlerError> {
        let (reply, outcome) = oneshot::channel();
        self.jobs.send(HandlerJob { event, info, reply }).await.map_err(|_| HandlerError::Gone)?;
        outcome.await.unwrap_or(Err(HandlerError::Gone))
    }

    /// The same with several events at a time.
    ///
    /// # Errors
    /// There is no outcome for any of them; see [`HandlerError`].
    pub async fn deliver_batch(&self, entries: Vec<BatchEntry>, info: BatchInfo) -> Result<Outcomes, HandlerError> {
        let batches = self.batches.as_ref().ok_or(HandlerError::Gone)?;
        let (reply, outcomes) = oneshot::channel();
        batches.send(BatchJob { entries, info, reply }).await.map_err(|_| HandlerError::Gone)?;
        outcomes.await.unwrap_or(Err(HandlerError::Gone))
    }
}

async fn until(well: Option<watch::Receiver<bool>>, wanted: bool) {
    let is_so = match well {
        None => wanted,
        Some(mut well) => well.wait_for(|well| *well == wanted).await.is_ok(),
    };
    if !is_so {
        std::future::pending().await
    }
}
