//! The `pubsub.redis` adapter: topics are Redis Streams, groups are consumer groups.
//!
//! ```text
//! publish    publish ──► pipe (one pipelined connection) ──► Redis
//! deliver    fetch (a blocking connection for each group) ──► subscription ──► host
//! again      pending (own entries of an earlier life, those of the dead) and retries, over the pipe
//! upkeep     leases, consumers, lag
//! ```
//!
//! `protocol`, `commands`, `entries`, `failure`, `config` and `ledger` know no connection. Absent on purpose: Redis
//! Cluster and Sentinel, TLS (the host's part), dead-lettering (the host's part), ordering by key.

mod commands;
mod config;
mod connection;
mod consumers;
mod entries;
mod failure;
mod fetch;
pub mod fuzz;
mod hub;
mod lag;
mod leases;
mod ledger;
mod pending;
mod pipe;
mod protocol;
mod publish;
mod retries;
mod subscription;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Failure, Feature, FeatureSet, Message, StartPosition, StatusSink, SubscribeOptions,
    log, task, timer,
};

use crate::commands::Start;
use crate::config::Settings;
use crate::connection::{Link, dial};
use crate::hub::{Hub, PATIENCE};
use crate::ledger::HELD_MAX;
use crate::pipe::{Pipe, text};
use crate::subscription::Sub;
use whimbrel_sdk::health::{Health, Standing};

pub use crate::subscription::RedisSubscription;

/// Messages of one publish call, at most: enough to make what a call costs small, and few enough to be answered soon.
pub const BATCH_MAX: u32 = 512;

/// How long the first try to connect may take at most.
const FIRST_DIAL_WAIT: Duration = Duration::from_secs(1);

/// How long closing waits for the broker's last answers.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

// Not where another component builds on this one: its exports would clash with that one's own.
#[cfg(feature = "component")]
whimbrel_sdk::export_adapter!(crate::Redis);

/// One component's connection to Redis.
pub struct Redis {
    hub: Rc<Hub>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("pipe", &self.hub.pipe).finish_non_exhaustive()
    }
}

impl Redis {
    /// Settlements that came too late to mean anything, since the connection was opened.
    #[must_use]
    pub fn stale_settlements(&self) -> u64 {
        self.hub.stale.get()
    }
}

impl Adapter for Redis {
    type Subscription = RedisSubscription;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let settings = Rc::new(Settings::of(&config)?);
        let health = Health::new("Redis", status);
        let standing = health.standing();
        standing.is_down("");
        let name = format!("whimbrel-{}", config.instance);
        let link = first_link(&settings, &name, &standing).await?;
        let pipe = Pipe::new(Rc::clone(&settings), name);
        let hub = Hub::new(Rc::clone(&settings), config.instance, Rc::clone(&pipe), health);
        let weak = Rc::downgrade(&hub);
        let losing = weak.clone();
        task::spawn(async move {
            let lost = || {
                if let Some(hub) = losing.upgrade() {
                    hub.lose_tokens();
                }
            };
            pipe.run(link, standing, lost).await;
        });
        task::spawn(retries::run(Rc::clone(&hub)));
        task::spawn(consumers::keep_swept(weak.clone()));
        task::spawn(lag::run(weak.clone()));
        if let Some(lease) = settings.lease {
            task::spawn(leases::keep(weak, lease));
        }
        Ok(Self { hub })
    }

    fn features(&self) -> FeatureSet {
        FeatureSet {
            abilities: Feature::DURABLE | Feature::GROUPS | Feature::DELAY | Feature::DELIVERY_COUNT,
            max_batch: BATCH_MAX,
            max_message_bytes: protocol::MESSAGE_MAX_BYTES as u64,
        }
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        publish::publish(&self.hub.pipe, &self.hub.settings, messages, deadline).await
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<RedisSubscription, Failure> {
        let hub = &self.hub;
        if topic.is_empty() || group.is_empty() || options.max_unsettled == 0 {
            return Err(Failure::Invalid("a subscription needs a topic, a group and room for one message".to_owned()));
        }
        let limit = usize::try_from(options.max_unsettled).unwrap_or(HELD_MAX).min(HELD_MAX);
        let limit = limit.min(hub.settings.concurrency.unwrap_or(HELD_MAX));
        let start = match options.start {
            Some(StartPosition::Latest) => Start::Latest,
            Some(StartPosition::Earliest) | None => Start::Earliest,
        };
        pending::create_group(hub, &topic, &group, start).await?;
        let reader = hub.reader(&group, &topic)?;
        let sub = Sub::new(topic, Rc::clone(&reader), limit, hub.settings.queue_depth);
        reader.add(Rc::clone(&sub));
        task::spawn(Rc::clone(&sub).feed(deliveries));
        let (swept, sweeping) = (Rc::clone(&sub), Rc::clone(hub));
        task::spawn(async move { consumers::sweep(&sweeping, &swept).await });
        Ok(RedisSubscription { hub: Rc::clone(hub), sub })
    }

    async fn ping(&self) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        protocol::command(&mut bytes, &[b"PING"]);
        let answered = self.hub.pipe.call(bytes, PATIENCE, |reply| failure::sound(reply, "").map(|_| ())).await;
        answered.unwrap_or_else(|lost| Err(lost.failure()))
    }

    async fn close(self: Rc<Self>) {
        let hub = &self.hub;
        join_all(hub.subs().iter().map(|sub| subscription::stop(hub, sub))).await;
        hub.retries.close();
        hub.pipe.close(CLOSE_WAIT).await;
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
