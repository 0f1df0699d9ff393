//! An adapter, a consumer, and how to wait. Brokers are in `server`, what stands before one in `proxy`.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use tokio::task::LocalSet;
use whimbrel_kafka::{Kafka, KafkaSubscription};
use whimbrel_sdk::{
    Adapter, Config, Delivery, DeliverySink, Failure, Message, Property, SettleFailure, Settlement, StartPosition,
    Status, StatusSink, SubscribeOptions, Subscription, Verdict,
};

pub(crate) use super::server::*;

/// No test takes longer than this.
const TEST_MAX: Duration = Duration::from_secs(120);

/// Nothing that should happen takes longer than this.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What should not happen would have by now.
pub(crate) const A_WHILE: Duration = Duration::from_millis(250);

thread_local! {
    /// Every test has a thread, and so names of its own on the broker that all share.
    static NUMBER: u32 = {
        static TESTS: AtomicU32 = AtomicU32::new(1);
        TESTS.fetch_add(1, Ordering::Relaxed)
    };
}

/// What a topic or a group of this test is called at the broker.
pub(crate) fn real(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}.{}", NUMBER.with(|number| *number)) }
}

/// Runs a test on one thread, as a component would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_within(TEST_MAX, test);
}

/// The same, for one that takes longer.
pub(crate) fn run_within(wait: Duration, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(wait, test).await.expect("the test hangs");
    });
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(SOON, what, holds).await;
}

/// The same, for what takes longer.
pub(crate) async fn until_within(wait: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + wait;
    while !holds() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An open adapter.
pub(crate) struct Bus {
    pub(crate) kafka: Rc<Kafka>,
    pub(crate) news: RefCell<mpsc::Receiver<Status>>,
}

/// Settings of every test: without credentials, from the beginning, and quick to miss a member.
const SETTINGS: [(&str, &str); 4] =
    [("authType", "none"), ("initialOffset", "oldest"), ("sessionTimeout", "2s"), ("heartbeatInterval", "300ms")];

/// A configuration as the host would hand it in.
pub(crate) fn config(host: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all = [("brokers", host)].into_iter().chain(SETTINGS).chain(settings.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.to_owned(), value: value.to_owned() }).collect();
    Config { name: "bus".to_owned(), properties, instance: instance.to_owned() }
}

impl Bus {
    pub(crate) async fn open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Self {
        Self::try_open(host, instance, settings).await.unwrap()
    }

    pub(crate) async fn try_open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let (sink, news) = StatusSink::channel();
        let opening = Kafka::open(config(host, instance, settings), sink);
        let kafka = tokio::time::timeout(SOON, opening).await.expect("open hangs")?;
        Ok(Self { kafka: Rc::new(kafka), news: RefCell::new(news) })
    }

    pub(crate) async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        let mut results = self.kafka.publish(vec![message(topic, data)], SOON).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Publishes the numbers.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u32>) {
        let messages = numbers.map(|number| message(topic, number.to_string().as_bytes()));
        self.publish_all(messages.collect()).await;
    }

    /// Publishes the numbers, each under one of so many keys.
    pub(crate) async fn publish_keyed(&self, topic: &str, numbers: std::ops::Range<u32>, keys: u32) {
        let keyed = |number: u32| {
            let key = Some(format!("key-{}", number % keys));
            Message { key, ..message(topic, number.to_string().as_bytes()) }
        };
        self.publish_all(numbers.map(keyed).collect()).await;
    }

    async fn publish_all(&self, messages: Vec<Message>) {
        let results = self.kafka.publish(messages, SOON).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    pub(crate) async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Inbox {
        self.subscribe_from(topic, group, max_unsettled, None).await
    }

    pub(crate) async fn subscribe_from(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Inbox {
        self.try_subscribe(topic, group, max_unsettled, start).await.unwrap()
    }

    pub(crate) async fn try_subscribe(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Result<Inbox, Failure> {
        let options = SubscribeOptions { max_unsettled, start, metadata: Vec::new() };
        let (sink, lists, ended) = DeliverySink::channel();
        let subscription = self.kafka.subscribe(real(topic), real(group), options, sink).await?;
        let subscription = RefCell::new(Some(Rc::new(subscription)));
        Ok(Inbox { subscription, lists: RefCell::new(lists), _ended: ended, waiting: RefCell::default() })
    }

    /// Waits for news of a kind.
    pub(crate) async fn hears(&self, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
        let listening = async {
            loop {
                let status = poll_fn(|context| self.news.borrow_mut().poll_next_unpin(context)).await;
                let status = status.expect("no more news");
                if is_it(&status) {
                    return status;
                }
            }
        };
        tokio::time::timeout(SOON, listening).await.unwrap_or_else(|_| panic!("no news: {what}"))
    }

    pub(crate) async fn close(self) {
        let closing = Rc::clone(&self.kafka).close();
        tokio::time::timeout(Duration::from_secs(6), closing).await.expect("close hangs");
    }
}

pub(crate) fn message(topic: &str, data: &[u8]) -> Message {
    Message { topic: real(topic), key: None, data: data.to_vec(), metadata: Vec::new() }
}

/// The host's end of a subscription.
pub(crate) struct Inbox {
    subscription: RefCell<Option<Rc<KafkaSubscription>>>,
    lists: RefCell<mpsc::Receiver<Vec<Delivery>>>,
    _ended: oneshot::Receiver<Failure>,
    waiting: RefCell<std::collections::VecDeque<Delivery>>,
}

impl Inbox {
    /// All deliveries that have come; waits for one.
    pub(crate) async fn list(&self) -> Vec<Delivery> {
        let first = self.waiting.borrow_mut().pop_front();
        let first = match first {
            Some(delivery) => delivery,
            None => self.wait_for_ever().await,
        };
        std::iter::once(first).chain(self.waiting.take()).collect()
    }

    async fn wait_for_ever(&self) -> Delivery {
        let list = self.next_list().await.expect("the stream ended");
        self.waiting.borrow_mut().extend(list);
        self.waiting.borrow_mut().pop_front().expect("an empty list was handed over")
    }

    /// The next delivery, if one comes in time. None also at the end of the stream.
    pub(crate) async fn within(&self, wait: Duration) -> Option<Delivery> {
        if let Some(delivery) = self.waiting.borrow_mut().pop_front() {
            return Some(delivery);
        }
        let list = tokio::time::timeout(wait, self.next_list()).await.ok()??;
        assert!(!list.is_empty(), "an empty list was handed over");
        self.waiting.borrow_mut().extend(list);
        self.waiting.borrow_mut().pop_front()
    }

    async fn next_list(&self) -> Option<Vec<Delivery>> {
        poll_fn(|context| self.lists.borrow_mut().poll_next_unpin(context)).await
    }

    pub(crate) async fn next(&self) -> Delivery {
        self.within(SOON).await.expect("no delivery")
    }

    pub(crate) async fn take(&self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// What else comes, until nothing has for a while.
    pub(crate) async fn rest(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        while let Some(delivery) = self.within(A_WHILE).await {
            all.push(delivery);
        }
        all
    }

    pub(crate) async fn is_quiet(&self) -> bool {
        self.within(A_WHILE).await.is_none()
    }

    fn live(&self) -> Rc<KafkaSubscription> {
        self.subscription.borrow().clone().expect("it is stopped")
    }

    pub(crate) async fn settle(&self, token: u64, verdict: Verdict) -> Result<(), SettleFailure> {
        let mut results = self.live().settle(vec![Settlement { token, verdict }]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    pub(crate) async fn ack(&self, delivery: &Delivery) {
        self.settle(delivery.token, Verdict::Ack).await.unwrap();
    }

    pub(crate) async fn ack_all(&self, deliveries: &[Delivery]) -> Vec<Result<(), SettleFailure>> {
        let settlement = |delivery: &Delivery| Settlement { token: delivery.token, verdict: Verdict::Ack };
        self.live().settle(deliveries.iter().map(settlement).collect()).await
    }

    pub(crate) async fn pause(&self) {
        self.live().pause().await;
    }

    pub(crate) async fn resume(&self) {
        self.live().resume().await;
    }

    /// Stops, as the host does: nobody settles any more.
    pub(crate) async fn subscription_stop(&self) {
        let subscription = self.subscription.take().expect("it is stopped");
        let subscription = Rc::try_unwrap(subscription).unwrap_or_else(|_| panic!("somebody settles"));
        tokio::time::timeout(SOON, subscription.stop()).await.expect("stop hangs");
    }

    /// Stops once nobody settles any more.
    pub(crate) async fn stop_shared(&self) {
        until("nobody settles", || self.subscription.borrow().as_ref().is_none_or(|one| Rc::strong_count(one) == 1))
            .await;
        self.subscription_stop().await;
    }

    /// `None`: settling is over.
    pub(crate) async fn settle_after_stop(&self, delivery: &Delivery) -> Option<Result<(), SettleFailure>> {
        let live = self.subscription.borrow().clone()?;
        Some(live.settle(vec![Settlement { token: delivery.token, verdict: Verdict::Ack }]).await.remove(0))
    }
}

/// The number in a message.
pub(crate) fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.message.data).unwrap().parse().unwrap()
}

/// One entry of a delivery's metadata.
pub(crate) fn metadata<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    let pairs = &delivery.message.metadata;
    pairs
        .iter()
        .rev()
        .find(|(known, _)| known == name)
        .map_or_else(|| panic!("no {name}: {pairs:?}"), |(_, value)| value)
}

/// Where a delivery stands in its partition.
pub(crate) fn offset(delivery: &Delivery) -> i64 {
    metadata(delivery, "__offset").parse().unwrap()
}
