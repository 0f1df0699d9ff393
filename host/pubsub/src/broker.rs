//! The handle to one running broker adapter: bounded queues of jobs, drained by a worker in production and by a few
//! lines of fake in tests. Called by the spines; knows nothing of what drains it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whimbrel_resources::{Component, Policy};

use crate::error::{BrokerError, SettleError};
use crate::metrics::PolicyCounters;
use crate::policy::{Breaker, Guard};
use crate::steps::step;

/// Name and value pairs that travel with a message; a name may repeat, the last one wins.
pub type Metadata = Vec<(String, String)>;

/// How many publishes may wait for one broker. More answer [`BrokerError::Overloaded`] at once.
const PUBLISH_QUEUE_JOBS_MAX: usize = 4096;

/// What a broker carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic as the broker knows it (with the namespace prefix, where one applies).
    pub topic: Arc<str>,
    /// Messages with one key keep their order where the broker can.
    pub key: Option<String>,
    /// Opaque bytes.
    pub data: Bytes,
    /// What travels with the message.
    pub metadata: Metadata,
}

/// What an adapter says its broker can do (wit `feature-set`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// A confirmed message survives a restart of the broker.
    pub durable: bool,
    /// The broker drops a message after `ttlInSeconds` by itself.
    pub ttl: bool,
    /// Order per key is kept.
    pub ordering: bool,
    /// Subscribed topics may hold wildcards.
    pub wildcards: bool,
    /// A retry with a wait lets others pass.
    pub delay: bool,
    /// Deliveries are counted.
    pub delivery_count: bool,
    /// Subscriptions of one group share the messages.
    pub groups: bool,
    /// A publish may wait for the subscribers of its topic.
    pub topic_flow: bool,
    /// Messages in one publish call, at least 1.
    pub max_batch: u32,
    /// Bytes of one message, data and metadata; 0: no limit known.
    pub max_message_bytes: u64,
}

impl Features {
    /// Whether what is given back comes again. A broker whose publishers wait for its subscribers keeps nothing for later:
    /// Dapr's in-memory one.
    pub(crate) fn redelivers(&self) -> bool {
        !self.topic_flow
    }

    /// The abilities it has, by the names that `plugin.yaml` and people know them by.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("durable", self.durable),
            ("ttl", self.ttl),
            ("ordering", self.ordering),
            ("wildcards", self.wildcards),
            ("delay", self.delay),
            ("delivery-count", self.delivery_count),
            ("groups", self.groups),
            ("topic-flow", self.topic_flow),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
}

/// One thing that is asked of a broker's worker.
#[derive(Debug)]
pub enum BrokerJob {
    /// Publish messages.
    Publish(PublishJob),
    /// Open a subscription.
    Subscribe(SubscribeJob),
    /// Ask the broker for a sign of life.
    Ping(oneshot::Sender<Result<(), BrokerError>>),
    /// Close the connection in good order and end the worker. Answered when it is closed.
    Close(oneshot::Sender<()>),
}

/// Messages to publish, and who waits for the results.
#[derive(Debug)]
pub struct PublishJob {
    /// At least one.
    pub messages: Vec<Message>,
    /// After this nobody waits any more.
    pub deadline: Instant,
    /// One result for each message, in order.
    pub reply: oneshot::Sender<Vec<Result<(), BrokerError>>>,
}

/// Where a group that the broker does not know yet begins (wit `start-position`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest message the broker still has.
    Earliest,
    /// At what is published from now on.
    Latest,
}

/// A subscription to open.
#[derive(Debug)]
pub struct SubscribeJob {
    /// The topic as the broker knows it.
    pub topic: Arc<str>,
    /// The consumer group.
    pub group: String,
    /// Deliveries that may be unsettled, what the adapter fetched ahead included. At least 1.
    pub max_unsettled: u32,
    /// Where a group that the broker does not know yet begins; none: as the adapter has it.
    pub start: Option<StartPosition>,
    /// The subscription's own metadata.
    pub metadata: Metadata,
    /// The live subscription.
    pub reply: oneshot::Sender<Result<Feed, BrokerError>>,
}

/// A live subscription: deliveries out, verdicts in. It ends when `deliveries` closes; the worker behind it may be gone
/// then, and what was not settled comes again on the next feed.
#[derive(Debug)]
pub struct Feed {
    /// What arrived, in lists as the adapter wrote them.
    pub deliveries: mpsc::Receiver<Vec<Arrived>>,
    /// Verdicts and the end.
    pub jobs: mpsc::Sender<FeedJob>,
    /// Why the feed ended, once `deliveries` is closed.
    pub ended: oneshot::Receiver<BrokerError>,
    /// Cancelled when the instance behind it is replaced: finish what is in hand, stop, and subscribe again. The broker
    /// is the same, another instance of its adapter serves.
    pub leave: CancellationToken,
}

/// A message as it arrived from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Names the delivery on this feed.
    pub token: u64,
    /// What the broker calls the message; the same at each redelivery.
    pub id: String,
    /// The message, with its actual topic.
    pub message: Message,
    /// How often the broker delivered it, this time included.
    pub count: Option<u32>,
}

/// What the host decided about a delivery (wit `verdict`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The broker may forget it.
    Ack,
    /// Deliver it again after this wait.
    Retry(Duration),
}

/// One thing that is asked of a feed's worker.
#[derive(Debug)]
pub enum FeedJob {
    /// Settle a delivery.
    Settle {
        /// Which one.
        token: u64,
        /// How.
        verdict: Verdict,
        /// Whether the broker confirmed.
        reply: oneshot::Sender<Result<(), SettleError>>,
    },
    /// Stop fetching; what was fetched still comes. Answered when nothing more will be fetched.
    Pause(oneshot::Sender<()>),
    /// Fetch again. Answered when the adapter knows.
    Resume(oneshot::Sender<()>),
    /// End the subscription; what is unsettled stays with the broker. Answered when it has ended.
    Stop(oneshot::Sender<()>),
}

/// A cheap handle to one running broker adapter with one configuration.
#[derive(Debug, Clone)]
pub struct Broker {
    /// The resource it runs for: name, scopes, metadata.
    pub declared: Arc<Component>,
    /// What it can do; empty until its first `open` has succeeded.
    pub features: Arc<OnceLock<Features>>,
    /// Counts its failures in both directions, where a policy has a circuit breaker.
    pub(crate) breaker: Arc<Breaker>,
    /// What its policies do.
    pub(crate) policed: Arc<PolicyCounters>,
    jobs: mpsc::Sender<BrokerJob>,
}

impl Broker {
    /// A handle, and the queue its worker drains.
    #[must_use]
    pub fn new(declared: Arc<Component>) -> (Self, mpsc::Receiver<BrokerJob>) {
        let (jobs, queue) = mpsc::channel(PUBLISH_QUEUE_JOBS_MAX);
        let (features, breaker, policed) = (Arc::default(), Arc::default(), Arc::default());
        (Self { declared, features, breaker, policed, jobs }, queue)
    }

    /// The same running adapter, declared otherwise in what is the host's alone: scopes.
    #[must_use]
    pub fn redeclared(&self, declared: Arc<Component>) -> Self {
        Self { declared, ..self.clone() }
    }

    /// A handle that does not keep it open.
    #[must_use]
    pub fn downgrade(&self) -> WeakBroker {
        WeakBroker(self.jobs.downgrade())
    }

    /// Its circuit breaker, where the policy has one.
    pub(crate) fn guard<'a>(&'a self, policy: &'a Policy) -> Option<Guard<'a>> {
        let template = policy.breaker.as_deref()?;
        Some(Guard { breaker: &self.breaker, name: &self.declared.name, template })
    }

    /// No broker of its name follows it: the state of its circuit breaker is not shown any more.
    pub fn forget_breaker(&self) {
        self.policed.forget();
    }

    /// What the broker can do, as far as it is known.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features.get().cloned().unwrap_or_default()
    }

    /// A topic as the broker knows it: with the namespace before it, where the resource asks for that.
    fn named(&self, topic: Arc<str>) -> Arc<str> {
        match &self.declared.topic_prefix {
            None => topic,
            Some(prefix) => [prefix.as_str(), &*topic].concat().into(),
        }
    }

    /// A topic of the broker's as everybody else knows it, if that is another name.
    pub(crate) fn plain(&self, topic: &str) -> Option<Arc<str>> {
        topic.strip_prefix(self.declared.topic_prefix.as_deref()?).map(Arc::from)
    }

    /// Publishes messages, one result for each. Never waits past the deadline: what has no answer by then is
    /// [`BrokerError::Unknown`], for it may be stored.
    pub async fn publish(&self, mut messages: Vec<Message>, deadline: Instant) -> Vec<Result<(), BrokerError>> {
        let count = messages.len();
        if self.declared.topic_prefix.is_some() {
            messages.iter_mut().for_each(|message| message.topic = self.named(Arc::clone(&message.topic)));
        }
        let (reply, results) = oneshot::channel();
        let all = |error: BrokerError| vec![Err(error); count];
        match self.jobs.try_send(BrokerJob::Publish(PublishJob { messages, deadline, reply })) {
            Err(mpsc::error::TrySendError::Full(_)) => return all(BrokerError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => return all(BrokerError::Closed),
            Ok(()) => step("publish.queued"),
        }
        match tokio::time::timeout_at(deadline, results).await {
            Ok(Ok(results)) => results,
            Ok(Err(_)) => all(BrokerError::Unknown("the adapter was lost before it answered".into())),
            Err(_) => all(BrokerError::Unknown("the adapter did not answer in time".into())),
        }
    }

    /// Opens a subscription.
    ///
    /// # Errors
    /// What the adapter answered, or [`BrokerError::Closed`] when its worker is gone for good.
    pub async fn subscribe(
        &self,
        topic: Arc<str>,
        group: String,
        max_unsettled: u32,
        start: Option<StartPosition>,
        metadata: Metadata,
    ) -> Result<Feed, BrokerError> {
        let (reply, feed) = oneshot::channel();
        let topic = self.named(topic);
        let job = SubscribeJob { topic, group, max_unsettled, start, metadata, reply };
        self.jobs.send(BrokerJob::Subscribe(job)).await.map_err(|_| BrokerError::Closed)?;
        feed.await.unwrap_or_else(|_| Err(BrokerError::Transient("the adapter was lost before it answered".into())))
    }

    /// Asks the broker for a sign of life. Who calls brings the bound.
    ///
    /// # Errors
    /// What the adapter answered, or [`BrokerError::Closed`] when its worker is gone for good.
    pub async fn ping(&self) -> Result<(), BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(BrokerJob::Ping(reply)).await.map_err(|_| BrokerError::Closed)?;
        answer.await.unwrap_or_else(|_| Err(BrokerError::Transient("the adapter was lost before it answered".into())))
    }

    /// Closes the connection in good order. Returns when it is closed, at once if its worker is gone already.
    pub async fn close(&self) {
        close(&self.jobs).await;
    }
}

/// A broker that closes in good order by itself once its last handle is gone: whoever publishes has one.
#[derive(Debug, Clone)]
pub struct WeakBroker(mpsc::WeakSender<BrokerJob>);

impl WeakBroker {
    /// Closes it though somebody may have a handle yet, as [`Broker::close`] does.
    pub async fn close(&self) {
        if let Some(jobs) = self.0.upgrade() {
            close(&jobs).await;
        }
    }
}

async fn close(jobs: &mpsc::Sender<BrokerJob>) {
    let (reply, closed) = oneshot::channel();
    if jobs.send(BrokerJob::Close(reply)).await.is_ok() {
        // A worker that ends without an answer has closed too.
        closed.await.ok();
    }
}
