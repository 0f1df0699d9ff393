//! `pubsub.outside`: a bounded queue in memory for each subscription, and the whole contract kept in one file.
//!
//! Built from `wit/` and the sdk alone, as an adapter that somebody keeps elsewhere is. Absent on purpose: groups, expiry,
//! wildcards. `pubsub.in-memory` has them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, Feature, FeatureSet, Message, SettleFailure, Settlement, Status,
    StatusSink, SubscribeOptions, Subscription, Verdict, export_adapter, task, timer,
};

/// Messages that may wait for one subscription, when nothing is said.
const QUEUE_MESSAGES_DEFAULT: usize = 1_000;

/// What a publisher to a full queue is asked to wait, in nanoseconds.
const THROTTLED_WAIT_NANOS: u64 = 100_000_000;

/// Messages in one publish call.
const BATCH_MESSAGES_MAX: u32 = 64;

/// The connection.
#[derive(Debug)]
pub struct Outside {
    queue_messages: usize,
    last_id: Cell<u64>,
    last_token: Rc<Cell<u64>>,
    queues: RefCell<HashMap<String, Vec<Rc<Queue>>>>,
}

/// A live subscription.
#[derive(Debug)]
pub struct Live(Rc<Queue>);

/// What waits for one subscription, and what it has in flight. No borrow lives across an await: a task that runs
/// meanwhile would find it taken.
struct Queue {
    waiting: RefCell<VecDeque<Entry>>,
    in_flight: RefCell<HashMap<u64, Entry>>,
    /// Retried messages whose wait is not over. They count against `max_unsettled` like those in flight.
    retrying: Cell<usize>,
    max_unsettled: usize,
    last_token: Rc<Cell<u64>>,
    paused: Cell<bool>,
    ended: Cell<bool>,
    feeder: Cell<Option<Waker>>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    message: Message,
    count: u32,
}

impl Adapter for Outside {
    type Subscription = Live;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let queue_messages = Properties::of(&config).number("queueMessages", QUEUE_MESSAGES_DEFAULT)?;
        status.tell(Status::Ready);
        Ok(Self { queue_messages, last_id: Cell::default(), last_token: Rc::default(), queues: RefCell::default() })
    }

    fn features(&self) -> FeatureSet {
        let abilities = Feature::DELAY | Feature::DELIVERY_COUNT;
        FeatureSet { abilities, max_batch: BATCH_MESSAGES_MAX, max_message_bytes: 0 }
    }

    async fn publish(&self, messages: Vec<Message>, _deadline: Duration) -> Vec<Result<(), Failure>> {
        // It never waits, so it is never late.
        messages.into_iter().map(|message| self.publish_one(&message)).collect()
    }

    async fn subscribe(
        &self,
        topic: String,
        _group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<Live, Failure> {
        let queue = Rc::new(Queue {
            waiting: RefCell::default(),
            in_flight: RefCell::default(),
            retrying: Cell::default(),
            max_unsettled: options.max_unsettled.max(1) as usize,
            last_token: Rc::clone(&self.last_token),
            paused: Cell::default(),
            ended: Cell::default(),
            feeder: Cell::default(),
        });
        self.queues.borrow_mut().entry(topic).or_default().push(Rc::clone(&queue));
        task::spawn(feed(Rc::clone(&queue), deliveries));
        Ok(Live(queue))
    }

    async fn ping(&self) -> Result<(), Failure> {
        Ok(())
    }

    async fn close(self: Rc<Self>) {
        for queue in self.queues.take().into_values().flatten() {
            queue.end();
        }
    }
}

impl Outside {
    /// Every subscription of the topic gets it, or none does.
    fn publish_one(&self, message: &Message) -> Result<(), Failure> {
        let mut queues = self.queues.borrow_mut();
        let Some(queues) = queues.get_mut(&message.topic) else { return Ok(()) };
        queues.retain(|queue| !queue.ended.get());
        if queues.iter().any(|queue| queue.waiting.borrow().len() >= self.queue_messages) {
            let text = format!("a queue of {} is full (queueMessages)", message.topic);
            return Err(Failure::Throttled((text, THROTTLED_WAIT_NANOS)));
        }
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        for queue in queues {
            queue.put(Entry { id, message: message.clone(), count: 0 });
        }
        Ok(())
    }
}

impl Subscription for Live {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>> {
        settlements.into_iter().map(|settlement| settle_one(&self.0, settlement)).collect()
    }

    async fn pause(&self) {
        self.0.paused.set(true);
    }

    async fn resume(&self) {
        self.0.paused.set(false);
        self.0.wake();
    }

    async fn stop(self) {
        self.0.end();
    }
}

fn settle_one(queue: &Rc<Queue>, settlement: Settlement) -> Result<(), SettleFailure> {
    let entry = queue.in_flight.borrow_mut().remove(&settlement.token).ok_or(SettleFailure::Stale)?;
    match settlement.verdict {
        Verdict::Ack => queue.wake(),
        Verdict::Retry(nanos) => {
            queue.retrying.set(queue.retrying.get() + 1);
            let queue = Rc::clone(queue);
            task::spawn(async move {
                timer::sleep(Duration::from_nanos(nanos)).await;
                queue.retrying.set(queue.retrying.get() - 1);
                queue.put(entry);
            });
        }
    }
    Ok(())
}

impl Queue {
    fn put(&self, entry: Entry) {
        self.waiting.borrow_mut().push_back(entry);
        self.wake();
    }

    /// What may be delivered now: as many as the credit allows.
    fn take(&self) -> Vec<Delivery> {
        let mut in_flight = self.in_flight.borrow_mut();
        let mut list = Vec::new();
        while !self.paused.get() && in_flight.len() + self.retrying.get() < self.max_unsettled {
            let Some(mut entry) = self.waiting.borrow_mut().pop_front() else { break };
            let token = self.last_token.get() + 1;
            self.last_token.set(token);
            entry.count += 1;
            let message = entry.message.clone();
            list.push(Delivery { token, id: entry.id.to_string(), message, count: Some(entry.count) });
            in_flight.insert(token, entry);
        }
        list
    }

    /// The next list; empty at the end.
    async fn next(&self) -> Vec<Delivery> {
        poll_fn(|context| {
            let list = if self.ended.get() { Vec::new() } else { self.take() };
            if self.ended.get() || !list.is_empty() {
                return Poll::Ready(list);
            }
            self.feeder.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        if let Some(feeder) = self.feeder.take() {
            feeder.wake();
        }
    }

    fn end(&self) {
        self.ended.set(true);
        self.wake();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.borrow().len()).finish_non_exhaustive()
    }
}

/// Takes deliveries to the host until the subscription ends or the host takes no more.
async fn feed(queue: Rc<Queue>, mut sink: DeliverySink) {
    loop {
        let list = queue.next().await;
        if list.is_empty() || sink.send(list).await.is_err() {
            break;
        }
    }
    queue.end();
}

export_adapter!(Outside);
