//! The handle to whatever receives events: a component's pool, an app behind HTTP. Called by `deliver` only.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::broker::Metadata;
use crate::error::HandlerError;
use crate::event::Event;

/// How many events may wait for one handler. What bounds them is each subscription's `max_unsettled`.
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

/// A cheap handle to whatever receives events for one app.
#[derive(Debug, Clone)]
pub struct Handler {
    jobs: mpsc::Sender<HandlerJob>,
    /// Whether it is well. None: nobody watches, so it is.
    well: Option<watch::Receiver<bool>>,
}

impl Handler {
    /// A handle, and the queue its worker drains.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<HandlerJob>) {
        let (jobs, queue) = mpsc::channel(HANDLER_QUEUE_JOBS_MAX);
        (Self { jobs, well: None }, queue)
    }

    /// The same, of somebody who may fall ill: its subscriptions end while this says `false`, and begin again after it.
    #[must_use]
    pub fn watched(self, well: Option<watch::Receiver<bool>>) -> Self {
        Self { well, ..self }
    }

    /// Returns once it is well, or not at all.
    pub(crate) async fn well(&self) {
        self.until(true).await;
    }

    /// Returns once it is ill, or not at all.
    pub(crate) async fn ill(&self) {
        self.until(false).await;
    }

    async fn until(&self, wanted: bool) {
        let is_so = match &self.well {
            None => wanted,
            Some(well) => well.clone().wait_for(|well| *well == wanted).await.is_ok(),
        };
        if !is_so {
            std::future::pending().await
        }
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
}
