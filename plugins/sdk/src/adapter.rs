//! What an adapter is to its author. [`export_adapter!`] turns one into the component's exports.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::feed::{DeliverySink, StatusSink};
use crate::{Config, Failure, FeatureSet, Message, SettleFailure, Settlement, SubscribeOptions};

/// One connection to one broker. The doc comments of `wit/broker.wit` say what each function promises.
///
/// All functions may be called at the same time; those that wait must not hold a `RefCell` borrow meanwhile.
#[allow(async_fn_in_trait, reason = "components have one thread, so that no future needs to be Send")]
pub trait Adapter: Sized + fmt::Debug + 'static {
    /// A live subscription.
    type Subscription: Subscription;

    /// Opens the connection. `status` is where news go for as long as the connection lives.
    ///
    /// # Errors
    /// `Invalid`, `Unauthorized` and `Permanent` are final; after any other the host tries again.
    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure>;

    /// What the broker can do.
    fn features(&self) -> FeatureSet;

    /// Publishes messages, one result for each in their order. Success means durably confirmed.
    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>>;

    /// Subscribes a group to a topic; deliveries go into `deliveries`, as many at once as there are.
    ///
    /// # Errors
    /// Why it cannot be; the host tries again unless `Invalid` or `Unauthorized`.
    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<Self::Subscription, Failure>;

    /// Asks the broker for a sign of life.
    ///
    /// # Errors
    /// What keeps it from giving one.
    async fn ping(&self) -> Result<(), Failure>;

    /// Ends the connection: flush what was settled, leave the rest with the broker.
    async fn close(self: Rc<Self>);
}

/// A live subscription.
#[allow(async_fn_in_trait, reason = "components have one thread, so that no future needs to be Send")]
pub trait Subscription: fmt::Debug + 'static {
    /// Settles deliveries, one result for each in their order.
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<(), SettleFailure>>;

    /// Stops fetching.
    async fn pause(&self);

    /// Fetches again.
    async fn resume(&self);

    /// Ends the subscription; what is unsettled stays with the broker.
    async fn stop(self);
}

/// Exports a type that implements [`Adapter`] as the component's `broker`.
#[macro_export]
macro_rules! export_adapter {
    ($adapter:ty) => {
        #[cfg(target_family = "wasm")]
        mod whimbrel_exports {
            #![allow(unsafe_code, unused_imports, reason = "the generated entry points of the component")]
            use super::*;
            struct Exports;
            impl $crate::bindings::adapter::exports::whimbrel::pubsub::broker::Guest for Exports {
                type Connection = $crate::adapter::component::Connection<$adapter>;
                type Subscription =
                    $crate::adapter::component::LiveSubscription<<$adapter as $crate::Adapter>::Subscription>;
            }
            $crate::bindings::adapter::export!(Exports with_types_in $crate::bindings::adapter);
        }
    };
}

#[cfg(target_family = "wasm")]
pub mod component;
