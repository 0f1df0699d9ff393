//! An open adapter, as the host holds it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;

use super::{Inbox, SOON, message, options};
use crate::{Adapter, Config, DeliverySink, Failure, Message, Status, StatusSink, SubscribeOptions};

/// How long an adapter may take to close: half of what the host gives it.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Bus<A: Adapter> {
    /// The adapter, for what is not here.
    pub adapter: Rc<A>,
    news: RefCell<mpsc::Receiver<Status>>,
}

impl<A: Adapter> Bus<A> {
    /// Opens an adapter.
    ///
    /// # Panics
    /// It is refused, or takes too long.
    pub async fn open(config: Config) -> Self {
        Self::try_open(config).await.unwrap_or_else(|failure| panic!("not opened: {failure:?}"))
    }

    /// The same where it may be refused.
    ///
    /// # Errors
    /// What the adapter says.
    ///
    /// # Panics
    /// It takes too long.
    pub async fn try_open(config: Config) -> Result<Self, Failure> {
        let (sink, news) = StatusSink::channel();
        let adapter = tokio::time::timeout(SOON, A::open(config, sink)).await.expect("open hangs")?;
        Ok(Self { adapter: Rc::new(adapter), news: RefCell::new(news) })
    }

    /// Publishes bytes.
    ///
    /// # Errors
    /// What the adapter answers.
    pub async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        self.send(message(topic, data)).await
    }

    /// Publishes one message.
    ///
    /// # Errors
    /// What the adapter answers.
    ///
    /// # Panics
    /// It does not answer once for one message.
    pub async fn send(&self, message: Message) -> Result<(), Failure> {
        let mut results = self.adapter.publish(vec![message], SOON).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    /// Publishes messages in one call.
    ///
    /// # Panics
    /// Not all are confirmed.
    pub async fn send_all(&self, messages: Vec<Message>) {
        let count = messages.len();
        let results = self.adapter.publish(messages, SOON).await;
        assert!(results.len() == count && results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Publishes numbers as texts, in one call.
    ///
    /// # Panics
    /// Not all are confirmed.
    pub async fn publish_numbers(&self, topic: &str, numbers: Range<u32>) {
        self.send_all(numbers.map(|number| message(topic, number.to_string().as_bytes())).collect()).await;
    }

    /// Subscribes a group, with so many unsettled at most.
    ///
    /// # Panics
    /// It is refused, or takes too long.
    pub async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Inbox<A::Subscription> {
        let subscribing = self.try_subscribe(topic, group, options(max_unsettled)).await;
        subscribing.unwrap_or_else(|failure| panic!("not subscribed to {topic}: {failure:?}"))
    }

    /// The same where it may be refused.
    ///
    /// # Errors
    /// What the adapter says.
    ///
    /// # Panics
    /// It takes too long.
    pub async fn try_subscribe(
        &self,
        topic: &str,
        group: &str,
        options: SubscribeOptions,
    ) -> Result<Inbox<A::Subscription>, Failure> {
        let (sink, lists, ended) = DeliverySink::channel();
        let subscribing = self.adapter.subscribe(topic.to_owned(), group.to_owned(), options, sink);
        let subscription = tokio::time::timeout(SOON, subscribing).await.expect("subscribe hangs")?;
        Ok(Inbox::new(subscription, lists, ended))
    }

    /// The next news.
    ///
    /// # Panics
    /// There are none to come.
    pub async fn news(&self) -> Status {
        poll_fn(|context| self.news.borrow_mut().poll_next_unpin(context)).await.expect("no more news")
    }

    /// Waits for news of a kind.
    ///
    /// # Panics
    /// None come in time.
    pub async fn hears(&self, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
        let listening = async {
            loop {
                let status = self.news().await;
                if is_it(&status) {
                    return status;
                }
            }
        };
        tokio::time::timeout(SOON, listening).await.unwrap_or_else(|_| panic!("no news: {what}"))
    }

    /// Waits for the news that the broker is away, with a reason.
    ///
    /// # Panics
    /// They do not come.
    pub async fn is_away(&self) {
        self.hears("it is away", |status| matches!(status, Status::Connecting(why) if !why.is_empty())).await;
    }

    /// Waits for the news that the broker is there.
    ///
    /// # Panics
    /// They do not come.
    pub async fn is_back(&self) {
        self.hears("it is back", |status| matches!(status, Status::Ready)).await;
    }

    /// Closes the adapter, as the host does.
    ///
    /// # Panics
    /// It takes too long.
    pub async fn close(self) {
        self.close_within(CLOSE_MAX).await;
    }

    /// The same, for one that has more to do.
    ///
    /// # Panics
    /// It takes longer.
    pub async fn close_within(self, bound: Duration) {
        tokio::time::timeout(bound, self.adapter.close()).await.expect("close hangs");
    }
}
