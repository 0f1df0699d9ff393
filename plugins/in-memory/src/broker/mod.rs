//! The adapter: reads the resource's settings and hands every call to one of two brokers, chosen by `mode`.
//! Called by the exports. Absent on purpose: what the modes do, which is `dapr`'s and `queues`' to know.

mod bell;
mod dapr;
mod queues;
mod room;
mod settings;
mod topics;
mod ttl;

use std::rc::Rc;
use std::time::Duration;

use settings::{Mode, Settings};
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Failure, Feature, FeatureSet, Message, SettleFailure, Settlement, Status,
    StatusSink, SubscribeOptions, Subscription,
};

/// Messages in one publish call. A list costs little more than one message; but in mode `dapr` the whole call waits for
/// the subscribers of its topic, so it stays small.
const BATCH_MESSAGES_MAX: u32 = 128;

/// The connection: to nothing but the component's own memory.
#[derive(Debug)]
pub struct InMemory(Broker);

#[derive(Debug)]
enum Broker {
    Dapr(dapr::Bus),
    Queue(queues::Queues),
}

/// A live subscription in either mode.
#[derive(Debug)]
pub enum Live {
    /// A copy of every message, one at a time.
    Dapr(dapr::Live),
    /// A share of a group's queue.
    Queue(queues::Live),
}

impl Adapter for InMemory {
    type Subscription = Live;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let settings = Settings::read(&config)?;
        let broker = match settings.mode {
            Mode::Dapr => Broker::Dapr(dapr::Bus::default()),
            Mode::Queue => Broker::Queue(queues::Queues::new(settings.limits)),
        };
        // There is nothing to connect to, so it serves from the start.
        status.tell(Status::Ready);
        Ok(Self(broker))
    }

    fn features(&self) -> FeatureSet {
        let (abilities, max_message_bytes) = match &self.0 {
            Broker::Dapr(_) => (Feature::WILDCARDS | Feature::TOPIC_FLOW, 0),
            Broker::Queue(queues) => (
                Feature::TTL
                    | Feature::ORDERING
                    | Feature::WILDCARDS
                    | Feature::DELAY
                    | Feature::DELIVERY_COUNT
                    | Feature::GROUPS,
                queues.message_bytes_max(),
            ),
        };
        FeatureSet { abilities, max_batch: BATCH_MESSAGES_MAX, max_message_bytes }
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        match &self.0 {
            Broker::Dapr(bus) => bus.publish(messages, deadline).await,
            Broker::Queue(queues) => messages.into_iter().map(|message| queues.publish(message)).collect(),
        }
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<Live, Failure> {
        match &self.0 {
            Broker::Dapr(bus) => bus.subscribe(topic, deliveries).map(Live::Dapr),
            Broker::Queue(queues) => queues.subscribe(topic, group, options.max_unsettled, deliveries).map(Live::Queue),
        }
    }

    async fn ping(&self) -> Result<(), Failure> {
        Ok(())
    }

    async fn close(self: Rc<Self>) {
        match &self.0 {
            Broker::Dapr(bus) => bus.close(),
            Broker::Queue(queues) => queues.close(),
        }
    }
}

impl Subscription for Live {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        match self {
            Self::Dapr(live) => live.settle(settlements),
            Self::Queue(live) => live.settle(settlements),
        }
    }

    async fn pause(&self) {
        match self {
            Self::Dapr(live) => live.pause(),
            Self::Queue(live) => live.pause(),
        }
    }

    async fn resume(&self) {
        match self {
            Self::Dapr(live) => live.resume(),
            Self::Queue(live) => live.resume(),
        }
    }

    async fn stop(self) {
        match self {
            Self::Dapr(live) => live.stop(),
            Self::Queue(live) => live.stop(),
        }
    }
}

#[cfg(test)]
mod tests;
