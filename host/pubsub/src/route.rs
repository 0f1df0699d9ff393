//! Where an event goes within its app. Called by `deliver`. Absent as yet: rules; every event takes the default route.

use std::sync::Arc;

use whimbrel_resources::Subscription;

use crate::event::Event;

/// The routes of one subscription, ready to be taken.
#[derive(Debug)]
pub(crate) struct Routes {
    default: Option<Arc<str>>,
}

impl Routes {
    /// The routes of a subscription.
    pub(crate) fn new(declared: &Subscription) -> Self {
        Self { default: declared.default_route.as_deref().map(Arc::from) }
    }

    /// The path for an event. `None`: no route takes it.
    pub(crate) fn select(&self, _event: &Event) -> Option<Arc<str>> {
        self.default.clone()
    }
}

#[cfg(test)]
mod tests;
