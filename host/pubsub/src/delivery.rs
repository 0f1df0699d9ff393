//! One message in flight to a subscriber, and what becomes of it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::broker::{Arrived, FeedJob, Message, Verdict};
use crate::error::{BrokerError, SettleError};
use crate::group::Place;

/// How long a settlement may take to be confirmed. Past it the delivery counts as unsettled, and the broker's
/// redelivery has it.
const SETTLE_WAIT: Duration = Duration::from_secs(30);

/// Why a message goes to the dead-letter topic or is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The subscriber said so.
    #[error("the subscriber dropped it")]
    Dropped,
    /// The subscriber takes no batches where it was to go, or answered what its subscription drops.
    #[error(
        "the subscriber does not want it: it takes no batches at this route, or answered a status that is to drop it"
    )]
    Unserved,
    /// The policy's attempts are used up; the last failure.
    #[error("no attempt is left: {0}")]
    Exhausted(String),
    /// The handler's worker has ended, through no fault of the message.
    #[error("the handler's worker has ended")]
    HandlerGone,
    /// The app is ill and was not asked.
    #[error("the app is not in a healthy state")]
    Unwell,
    /// The circuit breaker lets no attempt pass. Nobody has judged the message.
    #[error("the circuit breaker is open")]
    BreakerOpen,
    /// It is not a CloudEvent and the subscription is not raw.
    #[error("it is no event: {0}")]
    Unparsable(String),
    /// Its expiration has passed.
    #[error("it has expired")]
    Expired,
    /// No route takes it.
    #[error("no route takes it")]
    Unrouted,
    /// A content rule cannot be evaluated for it.
    #[error("{0}")]
    Unruled(String),
    /// It came from a topic this app may not subscribe to.
    #[error("the app may not have messages of this topic")]
    Forbidden,
}

/// What the host decided about a delivery. Only `settle` acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The subscriber has it.
    Ack,
    /// Back to the broker, un-acknowledged, for another delivery after this wait.
    RetryAfter(Duration, Reason),
    /// To the dead-letter topic, then acknowledged.
    DeadLetter(Reason),
    /// Acknowledged, for it will never be wanted.
    Drop(Reason),
    /// Neither: the host stops, and the broker keeps it.
    Hold,
}

/// One message in flight: owned by one task, settled once. Not clonable.
#[derive(Debug)]
pub struct Delivery {
    /// Names it on its feed.
    pub token: u64,
    /// What the broker calls the message.
    pub id: String,
    /// The message with its actual topic.
    pub message: Message,
    /// How often the broker delivered it, this time included.
    pub count: Option<u32>,
    jobs: mpsc::Sender<FeedJob>,
    leave: CancellationToken,
    settled: bool,
    /// Its place among those that may run at once, where they have to be admitted.
    place: Option<Place>,
}

impl Delivery {
    /// Takes charge of what arrived on a feed.
    #[must_use]
    pub fn new(arrived: Arrived, jobs: mpsc::Sender<FeedJob>, leave: CancellationToken) -> Self {
        let Arrived { token, id, message, count } = arrived;
        Self { token, id, message, count, jobs, leave, settled: false, place: None }
    }

    /// The same with its place, which is free again when the delivery is settled.
    pub(crate) fn in_place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Whether others of its key wait for it to be done with.
    pub(crate) fn has_turn(&self) -> bool {
        self.place.as_ref().is_some_and(Place::has_turn)
    }

    /// Tells the broker. Called by `settle` only.
    pub(crate) async fn finish(mut self, verdict: Verdict) -> Result<(), SettleError> {
        self.settled = true;
        let (reply, confirmed) = oneshot::channel();
        let job = FeedJob::Settle { token: self.token, verdict, reply };
        let settling = async {
            self.jobs.send(job).await.map_err(|_| SettleError::Stale)?;
            confirmed.await.unwrap_or(Err(SettleError::Stale))
        };
        let late = || SettleError::Failed(BrokerError::Unknown("the settlement was not confirmed in time".into()));
        tokio::time::timeout(SETTLE_WAIT, settling).await.unwrap_or_else(|_| Err(late()))
    }

    /// Returns when it is no use to keep it for a later attempt: the worker behind its feed is gone, so nothing can be
    /// settled any more, or the feed is to be left, and the next one brings it again.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.jobs.closed() => {}
            () = self.leave.cancelled() => {}
        }
    }

    /// Leaves it with the broker on purpose. Called by `settle` only.
    pub(crate) fn hold(mut self) {
        self.settled = true;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            // Nothing is lost, the broker delivers it again; but no path may end here.
            tracing::error!(id = %self.id, topic = %self.message.topic, "bug: a delivery was dropped unsettled");
        }
    }
}
