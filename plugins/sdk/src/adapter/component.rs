//! The glue between [`Adapter`] and what wit-bindgen asks for. Only [`export_adapter!`](crate::export_adapter) names it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{Adapter, Subscription};
use crate::bindings::adapter::exports::whimbrel::pubsub::broker as wit;
use crate::bindings::adapter::{wit_future, wit_stream};
use crate::feed::{DeliverySink, StatusSink};
use wit_bindgen::{FutureReader, StreamReader};

/// The exported resource `connection`.
#[derive(Debug)]
pub struct Connection<A> {
    adapter: Rc<A>,
    status: RefCell<Option<StreamReader<wit::Status>>>,
}

impl<A: Adapter> wit::GuestConnection for Connection<A>
where
    A::Subscription: Subscription,
{
    async fn open(config: wit::Config) -> Result<wit::Connection, wit::Failure> {
        let (sink, news) = StatusSink::stream();
        let adapter = Rc::new(A::open(config, sink).await?);
        Ok(wit::Connection::new(Self { adapter, status: RefCell::new(Some(news)) }))
    }

    fn features(&self) -> wit::FeatureSet {
        self.adapter.features()
    }

    async fn publish(&self, messages: Vec<wit::Message>, deadline: u64) -> Vec<Result<(), wit::Failure>> {
        self.adapter.publish(messages, Duration::from_nanos(deadline)).await
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: wit::SubscribeOptions,
    ) -> Result<(wit::Subscription, StreamReader<wit::Delivery>, FutureReader<Result<(), wit::Failure>>), wit::Failure>
    {
        let (stream, deliveries) = wit_stream::new();
        // A sink that is dropped without a word was stopped.
        let (end, ended) = wit_future::new(|| Ok(()));
        let sink = DeliverySink::new(stream, end);
        let subscription = self.adapter.subscribe(topic, group, options, sink).await?;
        Ok((wit::Subscription::new(LiveSubscription(subscription)), deliveries, ended))
    }

    async fn status(&self) -> StreamReader<wit::Status> {
        let news = self.status.borrow_mut().take();
        // Asked a second time, there is nothing more to tell.
        news.unwrap_or_else(|| wit_stream::new().1)
    }

    async fn ping(&self) -> Result<(), wit::Failure> {
        self.adapter.ping().await
    }

    async fn close(this: wit::Connection) {
        let Connection { adapter, .. } = this.into_inner::<Self>();
        adapter.close().await;
    }
}

/// The exported resource `subscription`.
#[derive(Debug)]
pub struct LiveSubscription<S>(S);

impl<S: Subscription> wit::GuestSubscription for LiveSubscription<S> {
    async fn settle(&self, settlements: Vec<wit::Settlement>) -> Vec<Result<(), wit::SettleFailure>> {
        self.0.settle(settlements).await
    }

    async fn pause(&self) {
        self.0.pause().await;
    }

    async fn resume(&self) {
        self.0.resume().await;
    }

    async fn stop(this: wit::Subscription) {
        let LiveSubscription(subscription) = this.into_inner::<Self>();
        subscription.stop().await;
    }
}
