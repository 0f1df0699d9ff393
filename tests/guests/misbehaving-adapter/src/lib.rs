//! `pubsub.misbehaving`: the in-memory adapter, wrapped so that it traps, hangs, grows or floods where its settings say.
//! Called by the host in tests that show that nobody else suffers. A trap takes the queues with it: they were memory.
//! Absent on purpose: any code that publishes or delivers.

mod faults;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use faults::{Deed, Faults, Step};
use whimbrel_in_memory::{InMemory, Live};
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, FeatureSet, Message, SettleFailure, Settlement, StatusSink,
    SubscribeOptions, Subscription, task,
};

/// Deliveries in one list of a flood.
const FLOOD_LIST_MESSAGES: u64 = 64;

/// The in-memory adapter with faults.
#[derive(Debug)]
pub struct Misbehaving {
    inner: Rc<InMemory>,
    faults: Rc<Faults>,
}

/// A subscription with faults.
#[derive(Debug)]
pub struct MisbehavingLive {
    /// `None`: a flood, which nobody settles.
    inner: Option<Live>,
    faults: Rc<Faults>,
    topic: String,
    flooding: Rc<Cell<bool>>,
}

impl Adapter for Misbehaving {
    type Subscription = MisbehavingLive;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let faults = Faults::read(&config)?;
        faults.commit(faults.due(Step::Open, "", 1)).await?;
        let inner = Rc::new(InMemory::open(config, status).await?);
        Ok(Self { inner, faults: Rc::new(faults) })
    }

    fn features(&self) -> FeatureSet {
        self.inner.features()
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        // One call may hold messages of several topics; the first one of the fated topic decides.
        let topic = messages.iter().map(|message| message.topic.as_str()).find(|topic| self.faults.concerns(topic));
        let due = topic.map_or(vec![], |topic| self.faults.due(Step::Publish, topic, messages.len() as u64));
        let short = due.contains(&Deed::WrongResultCount);
        if let Err(failure) = self.faults.commit(due).await {
            return vec![Err(failure); messages.len()];
        }
        let mut results = self.inner.publish(messages, deadline).await;
        if short {
            results.pop();
        }
        results
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<MisbehavingLive, Failure> {
        let due = self.faults.due(Step::Subscribe, &topic, 1);
        let flood = due.contains(&Deed::FloodDeliveries);
        self.faults.commit(due).await?;
        let flooding = Rc::new(Cell::new(flood));
        let inner = if flood {
            task::spawn(flood_deliveries(topic.clone(), deliveries, Rc::clone(&flooding)));
            None
        } else {
            Some(self.inner.subscribe(topic.clone(), group, options, deliveries).await?)
        };
        Ok(MisbehavingLive { inner, faults: Rc::clone(&self.faults), topic, flooding })
    }

    async fn ping(&self) -> Result<(), Failure> {
        self.inner.ping().await
    }

    async fn close(self: Rc<Self>) {
        // A close has no answer that could carry a failure.
        self.faults.commit(self.faults.due(Step::Close, "", 1)).await.ok();
        Rc::clone(&self.inner).close().await;
    }
}

impl Subscription for MisbehavingLive {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        let count = settlements.len();
        let due = self.faults.due(Step::Settle, &self.topic, count as u64);
        let short = due.contains(&Deed::WrongResultCount);
        if let Err(failure) = self.faults.commit(due).await {
            return vec![Err(SettleFailure::Failed(failure)); count];
        }
        let mut results = match &self.inner {
            Some(inner) => inner.settle(settlements).await,
            None => vec![Ok(()); count],
        };
        if short {
            results.pop();
        }
        results
    }

    async fn pause(&self) {
        if let Some(inner) = &self.inner {
            inner.pause().await;
        }
    }

    async fn resume(&self) {
        if let Some(inner) = &self.inner {
            inner.resume().await;
        }
    }

    async fn stop(self) {
        self.flooding.set(false);
        if let Some(inner) = self.inner {
            inner.stop().await;
        }
    }
}

/// Delivers without end and without regard to credit, for as long as anybody takes it.
async fn flood_deliveries(topic: String, mut sink: DeliverySink, flooding: Rc<Cell<bool>>) {
    let mut token = 0;
    while flooding.get() {
        let first = token + 1;
        token += FLOOD_LIST_MESSAGES;
        let delivery = |token: u64| Delivery {
            token,
            id: token.to_string(),
            message: Message { topic: topic.clone(), key: None, data: b"flood".to_vec(), metadata: vec![] },
            count: None,
        };
        if sink.send((first..=token).map(delivery).collect()).await.is_err() {
            break;
        }
    }
}

whimbrel_sdk::export_adapter!(Misbehaving);
