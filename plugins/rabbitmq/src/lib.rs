//! The `pubsub.rabbitmq` adapter: topics are exchanges, groups are queues bound to them.
//!
//! ```text
//! publish    publish ──► a channel in confirm mode ──► the publishing connection (wire, live) ──► RabbitMQ
//! deliver    consume (a channel for each subscription on the consuming connection) ──► subscription ──► host
//! again      retries, from memory
//! upkeep     lag
//! ```
//!
//! `protocol`, `config`, `message`, `topology`, `confirms`, `ledger`, `acks`, `later` and `failure` know no connection.
//! Absent on purpose: TLS (the host's part), dead-lettering unless the resource asks for RabbitMQ's own (the host's part),
//! ordering by key, streams, transactions.

mod acks;
mod bell;
mod call;
mod channel;
mod config;
mod confirms;
mod connection;
mod consume;
mod failure;
mod gate;
mod hub;
mod lag;
mod later;
mod ledger;
mod live;
mod message;
mod protocol;
mod publish;
mod retries;
mod subscription;
mod topics;
mod topology;
mod wire;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::join_all;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Failure, Feature, FeatureSet, Message, StatusSink, SubscribeOptions, log, task,
    timer,
};

use crate::config::{QueueType, Settings};
use crate::connection::{Link, dial};
use crate::failure::text;
use crate::hub::{CLOSE_WAIT, Hub, PATIENCE};
use crate::ledger::HELD_MAX;
use crate::protocol::{MESSAGE_MAX_BYTES, Request};
use crate::publish::Publisher;
use crate::topology::Plan;
use whimbrel_sdk::health::{Health, Standing};

pub use crate::subscription::RabbitmqSubscription;

/// Messages of one publish call, at most: enough to make what a call costs small, and few enough to be answered soon.
pub const BATCH_MAX: u32 = 512;

/// How long the first try to connect may take at most.
const FIRST_DIAL_WAIT: Duration = Duration::from_secs(1);

whimbrel_sdk::export_adapter!(crate::Rabbitmq);

/// One component's connection to RabbitMQ.
pub struct Rabbitmq {
    hub: Rc<Hub>,
}

impl fmt::Debug for Rabbitmq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rabbitmq").field("stale", &self.hub.stale).finish_non_exhaustive()
    }
}

impl Rabbitmq {
    /// Settlements that came too late to mean anything, since the connection was opened.
    #[must_use]
    pub fn stale_settlements(&self) -> u64 {
        self.hub.stale.get()
    }
}

impl Adapter for Rabbitmq {
    type Subscription = RabbitmqSubscription;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let settings = Rc::new(Settings::of(&config)?);
        settings.warnings(&config).into_iter().for_each(log::warn);
        let health = Health::new("RabbitMQ", status);
        let standing = health.standing();
        standing.is_down("");
        let name = settings.client_name.clone().unwrap_or_else(|| format!("whimbrel-{}", config.instance));
        let names = (format!("{name} (publishing)"), format!("{name} (consuming)"));
        let link = first_link(&settings, &names.0, &standing).await?;
        let hub = Hub::new(settings, health, names);
        let (wire, publisher) = (Rc::clone(&hub.publishing), Rc::downgrade(&hub.publisher));
        task::spawn(async move { wire.run(Some(link), standing).await });
        task::spawn(Publisher::expire(publisher));
        task::spawn(retries::run(Rc::clone(&hub)));
        task::spawn(lag::run(Rc::downgrade(&hub)));
        Ok(Self { hub })
    }

    fn features(&self) -> FeatureSet {
        let settings = &self.hub.settings;
        let mut abilities = Feature::TTL | Feature::GROUPS | Feature::DELAY;
        if settings.is_durable() {
            abilities = abilities | Feature::DURABLE;
        }
        if settings.declared.queue_type == QueueType::Quorum {
            abilities = abilities | Feature::DELIVERY_COUNT;
        }
        FeatureSet { abilities, max_batch: BATCH_MAX, max_message_bytes: MESSAGE_MAX_BYTES as u64 }
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        self.hub.publisher.publish(messages, deadline).await
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<RabbitmqSubscription, Failure> {
        let hub = &self.hub;
        if options.max_unsettled == 0 {
            return Err(Failure::Invalid("a subscription needs room for one message".to_owned()));
        }
        let plan = Plan::new(&hub.settings, topic, &group, &options.metadata)?;
        let limit = usize::try_from(options.max_unsettled).unwrap_or(HELD_MAX).min(HELD_MAX);
        let sub = hub.add(plan, group, limit.min(hub.settings.prefetch.unwrap_or(HELD_MAX)))?;
        let (told, attached) = oneshot::channel();
        task::spawn(consume::run(Rc::clone(hub), Rc::clone(&sub), told));
        let gone = || Failure::Transient("the connection is closing".to_owned());
        attached.await.unwrap_or_else(|_| Err(gone()))?;
        task::spawn(Rc::clone(&sub).feed(Rc::clone(hub), deliveries));
        Ok(RabbitmqSubscription { hub: Rc::clone(hub), sub })
    }

    async fn ping(&self) -> Result<(), Failure> {
        let answered = async {
            let live = self.hub.publishing.live(timer::now() + PATIENCE).await?;
            let refused = |lost: failure::Lost| lost.failure("RabbitMQ");
            let channel = live.open(Box::new(|_| ())).await.map_err(refused)?;
            // A setting of a channel that is closed at once: a question that needs no permission.
            let answered = channel.call(Request::Qos { prefetch: 1 }).await.map_err(refused);
            channel.close().await;
            answered
        };
        let slow = || Err(Failure::Transient(format!("RabbitMQ does not answer within {PATIENCE:?}")));
        timer::timeout(PATIENCE, answered).await.unwrap_or_else(slow)
    }

    async fn close(self: Rc<Self>) {
        let hub = &self.hub;
        join_all(hub.subs().iter().map(|sub| subscription::stop(hub, sub))).await;
        hub.retries.close();
        hub.publisher.close();
        hub.publishing.close(CLOSE_WAIT).await;
        let stale = hub.stale.get();
        if stale > 0 {
            log::info(&format!("{stale} settlements came after their connection was lost"));
        }
    }
}

/// The first connection. Only what will not mend by itself ends the wait for it: somebody must change the resource.
async fn first_link(settings: &Settings, name: &str, standing: &Standing) -> Result<Link, Failure> {
    let mut backoff = Backoff::default();
    // The first try is a short one, so that the reason is in the log before whoever waits has given up.
    let mut patience = FIRST_DIAL_WAIT;
    loop {
        let dialled = dial(settings, name, std::mem::replace(&mut patience, settings.dial_wait)).await;
        match dialled {
            Ok(link) => return Ok(link),
            Err(failure @ (Failure::Invalid(_) | Failure::Unauthorized(_))) => return Err(failure),
            Err(failure) => standing.is_down(&text(failure)),
        }
        timer::sleep(backoff.next_wait()).await;
    }
}
