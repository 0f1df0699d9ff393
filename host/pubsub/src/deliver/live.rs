//! What a reload may change under a running subscription: where its events go and its dead letters. A message keeps the
//! rules it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::route::Routes;
use crate::topology::Subscription;

/// A subscription that runs.
#[derive(Debug)]
pub struct Live(ArcSwap<Rules>);

/// What holds for one message.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) subscription: Arc<Subscription>,
    pub(super) routes: Routes,
    pub(super) dead_letter_topic: Option<Arc<str>>,
}

impl Live {
    /// One that is about to run.
    #[must_use]
    pub fn new(subscription: Subscription) -> Self {
        Self(ArcSwap::from_pointee(Rules::of(subscription)))
    }

    /// Gives it other routes, another dead-letter topic, another handler, for messages that begin from now on. Component,
    /// topic, group and metadata are those of its feed and stay as they were: a change of these is another subscription.
    pub fn change(&self, subscription: Subscription) {
        self.0.store(Arc::new(Rules::of(subscription)));
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.0.load_full()
    }
}

impl Rules {
    fn of(subscription: Subscription) -> Self {
        let declared = &subscription.declared;
        let dead_letter_topic = declared.dead_letter_topic.as_deref().filter(|topic| !topic.is_empty()).map(Arc::from);
        Self { routes: Routes::new(declared), dead_letter_topic, subscription: Arc::new(subscription) }
    }
}
