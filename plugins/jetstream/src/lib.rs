//! The `pubsub.jetstream` adapter: topics are subjects that a JetStream stream keeps, groups are durable consumers.
//!
//! ```text
//! publish    publish ──► wire (one pipelined connection) ──► NATS ──► confirmation
//! deliver    fetch (pulls as much as there is credit for) ──► wire ──► subscription ──► host
//! settle     subscription ──► wire, each confirmed by the broker; leases
//! upkeep     streams, consumers: found, checked, made where they are missing
//! ```
//!
//! `protocol`, `api`, `message`, `failure`, `config`, `auth` and `ledger` know no connection. Absent on purpose: TLS (the
//! host's part), dead-lettering (the host's part), ordering by key, ephemeral consumers, WebSockets.

mod api;
mod auth;
mod config;
mod connection;
mod consumers;
mod failure;
mod fetch;
mod hub;
mod leases;
mod ledger;
mod message;
mod protocol;
mod publish;
mod streams;
mod subscription;
mod wire;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Failure, Feature, FeatureSet, Message, StartPosition, StatusSink, SubscribeOptions,
    log, task,
};

use crate::config::{Settings, Start};
use crate::consumers::Wish;
use crate::hub::{Hub, Watch};
use crate::ledger::HELD_MAX;
use crate::subscription::Sub;
use crate::wire::Wire;
use whimbrel_sdk::health::Health;

pub use crate::subscription::JetStreamSubscription;

/// Messages of one publish call, at most: enough to make what a call costs small, and few enough to be answered soon.
pub const BATCH_MAX: u32 = 512;

/// How long closing waits for the broker's last answers.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

whimbrel_sdk::export_adapter!(crate::JetStream);

/// One component's connection to NATS.
pub struct JetStream {
    hub: Rc<Hub>,
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream").field("wire", &self.hub.wire).finish_non_exhaustive()
    }
}

impl JetStream {
    /// Settlements that came too late to mean anything, since the connection was opened.
    #[must_use]
    pub fn stale_settlements(&self) -> u64 {
        self.hub.stale.get()
    }
}

impl Adapter for JetStream {
    type Subscription = JetStreamSubscription;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let settings = Rc::new(Settings::of(&config)?);
        let health = Health::new("NATS", status);
        let standing = health.standing();
        standing.is_down("");
        let wire = Wire::new(Rc::clone(&settings));
        // Without one, the status says why, and publishes wait: the broker may come later.
        let link = wire.first_link(&standing).await?;
        let is_linked = link.is_some();
        let hub = Hub::new(settings, Rc::clone(&wire), health);
        task::spawn(wire.run(link, standing, Watch(Rc::downgrade(&hub))));
        if is_linked && let Err(failure) = check_jetstream(&hub).await {
            hub.wire.close(CLOSE_WAIT).await;
            return Err(failure);
        }
        Ok(Self { hub })
    }

    fn features(&self) -> FeatureSet {
        let in_memory = self.hub.settings.creation.as_ref().is_some_and(|creation| creation.memory);
        let abilities = Feature::GROUPS | Feature::DELAY | Feature::DELIVERY_COUNT | Feature::WILDCARDS;
        FeatureSet {
            abilities: if in_memory { abilities } else { abilities | Feature::DURABLE },
            max_batch: BATCH_MAX,
            max_message_bytes: self.hub.wire.max_message() as u64,
        }
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        publish::publish(&self.hub, messages, deadline).await
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<JetStreamSubscription, Failure> {
        let hub = &self.hub;
        if group.is_empty() || options.max_unsettled == 0 {
            return Err(Failure::Invalid("a subscription needs a group and room for one message".to_owned()));
        }
        let limit = usize::try_from(options.max_unsettled).unwrap_or(HELD_MAX).min(HELD_MAX);
        let limit = limit.min(hub.settings.concurrency.unwrap_or(HELD_MAX));
        let wish = wish(&hub.settings, topic, group, &options)?;
        let (consumer, _) = consumers::attach(hub, &wish).await?;
        let sub = Sub::new(wish, consumer, limit);
        hub.add(Rc::clone(&sub));
        task::spawn(Rc::clone(&sub).deliver(deliveries));
        task::spawn(Rc::clone(&sub).fetch(Rc::clone(hub)));
        task::spawn(leases::keep(Rc::downgrade(hub), Rc::downgrade(&sub)));
        Ok(JetStreamSubscription { hub: Rc::clone(hub), sub })
    }

    async fn ping(&self) -> Result<(), Failure> {
        if self.hub.wire.settled(self.hub.settings.request_wait).await {
            Ok(())
        } else {
            Err(Failure::Transient("NATS does not answer".to_owned()))
        }
    }

    async fn close(self: Rc<Self>) {
        let hub = &self.hub;
        join_all(hub.subs().iter().map(|sub| subscription::stop(hub, sub))).await;
        hub.wire.close(CLOSE_WAIT).await;
        let stale = hub.stale.get();
        if stale > 0 {
            log::info(&format!("{stale} settlements came after their connection was lost"));
        }
    }
}

/// What a subscription asks for; its own metadata may name the consumer.
fn wish(settings: &Settings, topic: String, group: String, options: &SubscribeOptions) -> Result<Wish, Failure> {
    message::check_filter(&topic)?;
    let own = options.metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("durableName"));
    let durable = match own {
        Some((_, name)) if !config::is_name(name) => {
            return Err(Failure::Invalid(format!(
                "the subscription's metadata durableName must be {}",
                config::A_NAME
            )));
        }
        Some((_, name)) => Some(name.clone()),
        None => settings.durable.clone(),
    };
    let start = match options.start {
        Some(StartPosition::Latest) => Start::New,
        Some(StartPosition::Earliest) => Start::All,
        None => settings.start.clone(),
    };
    Ok(Wish { topic, group, durable, start })
}

/// A server without JetStream, or an account that may not use it, is the wrong one.
async fn check_jetstream(hub: &Hub) -> Result<(), Failure> {
    let answer: Result<Result<serde_json::Value, _>, Failure> = hub.api("INFO", b"").await;
    match answer {
        Ok(Err(error)) => match failure::of_api(&error, "metadata natsURL") {
            failure @ Failure::Permanent(_) => Err(failure),
            _ => Ok(()),
        },
        Err(Failure::Transient(why)) if !hub.wire.has_jetstream() => {
            Err(Failure::Permanent(format!("metadata natsURL: the server has no JetStream: {why}")))
        }
        // A user need not have the right to ask this; a broker that is just starting answers later.
        _ => Ok(()),
    }
}
