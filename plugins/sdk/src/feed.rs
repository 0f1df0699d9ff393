//! Where an adapter puts deliveries and news. In a component these are streams of the contract. Tests, and adapters that
//! stand before another, read them from channels.

use futures::SinkExt;
use futures::channel::{mpsc, oneshot};

use crate::{Delivery, Failure, Status};

/// The host does not take any more: the subscription was stopped or the host is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// News that nobody took yet, at most. Older ones give way: what counts is how things stand now.
const NEWS_MAX: usize = 64;

/// Takes deliveries to the host, or to whoever reads the channel.
#[derive(Debug)]
pub struct DeliverySink(Way);

#[derive(Debug)]
enum Way {
    #[cfg(target_family = "wasm")]
    Host(component::ToHost),
    Channel {
        lists: mpsc::Sender<Vec<Delivery>>,
        end: oneshot::Sender<Failure>,
    },
}

impl DeliverySink {
    /// A sink, and where its lists and its end come out. A full channel makes [`send`](Self::send) wait, as the host's
    /// stream does.
    pub fn channel() -> (Self, mpsc::Receiver<Vec<Delivery>>, oneshot::Receiver<Failure>) {
        let (lists, deliveries) = mpsc::channel(0);
        let (end, ended) = oneshot::channel();
        (Self(Way::Channel { lists, end }), deliveries, ended)
    }

    /// Hands over deliveries, and returns when the host has taken them all. Send as many at once as there are: a list
    /// costs little more than one.
    ///
    /// # Errors
    /// [`Closed`] when the host takes no more; what it did not take is not delivered.
    pub async fn send(&mut self, deliveries: Vec<Delivery>) -> Result<(), Closed> {
        match &mut self.0 {
            #[cfg(target_family = "wasm")]
            Way::Host(host) => host.send(deliveries).await,
            Way::Channel { lists, .. } => lists.send(deliveries).await.map_err(|_| Closed),
        }
    }

    /// Ends the subscription from the adapter's side, and says why.
    pub async fn end(self, reason: Failure) {
        match self.0 {
            #[cfg(target_family = "wasm")]
            Way::Host(host) => host.end(reason).await,
            // Whoever read it may have gone first; then nobody asks.
            Way::Channel { end, .. } => drop(end.send(reason)),
        }
    }
}

/// Takes news to the host, or to whoever reads the channel.
#[derive(Debug, Clone)]
pub struct StatusSink(mpsc::Sender<Status>);

impl StatusSink {
    /// A sink, and where its news come out.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Status>) {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        (Self(sender), news)
    }

    /// Tells. News that nobody takes are dropped.
    pub fn tell(&self, status: Status) {
        self.0.clone().try_send(status).ok();
    }
}

#[cfg(target_family = "wasm")]
mod component {
    use super::{Closed, Delivery, DeliverySink, Failure, Status, StatusSink, Way};
    use crate::bindings::adapter::wit_stream;
    use futures::StreamExt;
    use wit_bindgen::{FutureWriter, StreamReader, StreamWriter};

    #[derive(Debug)]
    pub(super) struct ToHost {
        stream: StreamWriter<Delivery>,
        end: FutureWriter<Result<(), Failure>>,
    }

    impl ToHost {
        pub(super) async fn send(&mut self, deliveries: Vec<Delivery>) -> Result<(), Closed> {
            let left = self.stream.write_all(deliveries).await;
            if left.is_empty() { Ok(()) } else { Err(Closed) }
        }

        pub(super) async fn end(self, reason: Failure) {
            drop(self.stream);
            // The host may have gone first; then nobody asks.
            self.end.write(Err(reason)).await.ok();
        }
    }

    impl DeliverySink {
        pub(crate) fn new(stream: StreamWriter<Delivery>, end: FutureWriter<Result<(), Failure>>) -> Self {
            Self(Way::Host(ToHost { stream, end }))
        }
    }

    impl StatusSink {
        pub(crate) fn stream() -> (Self, StreamReader<Status>) {
            let (sink, mut news) = Self::channel();
            let (mut stream, reader) = wit_stream::new();
            crate::task::spawn(async move {
                while let Some(status) = news.next().await {
                    if stream.write_one(status).await.is_some() {
                        break;
                    }
                }
            });
            (sink, reader)
        }
    }
}
