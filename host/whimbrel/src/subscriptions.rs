//! The app's subscriptions: what is declared for it, and what it asks for itself.

use std::sync::Arc;

use whimbrel_api::App;
use whimbrel_pubsub::{Caller, Handler, Subscription, Topology};
use whimbrel_resources::{Policy, Subscription as Declared};

/// What the app says it subscribes to. It is asked once, as Dapr does.
#[derive(Debug)]
pub(crate) enum Own {
    /// It was not asked yet: it cannot be reached, or there is no component yet.
    Unasked,
    /// These.
    Told(Vec<Arc<Declared>>),
    /// Its answer cannot be read: nothing is started for it, not what is declared either, as Dapr has it.
    Unreadable,
}

/// Asks the app, again and again as the policy says.
pub(crate) async fn ask(app: &App, policy: &Policy) -> Own {
    let answer = match app.subscriptions(policy).await {
        Ok(answer) => answer.unwrap_or_default(),
        Err(error) => {
            tracing::error!("no subscriptions are started: {error}");
            return Own::Unreadable;
        }
    };
    let (own, warnings) = match whimbrel_resources::programmatic(&answer) {
        Ok(own) => own,
        Err(error) => {
            tracing::error!(
                "no subscriptions are started: the app's answer to /dapr/subscribe cannot be read: {error}"
            );
            return Own::Unreadable;
        }
    };
    for warning in warnings {
        tracing::warn!("the app's answer to /dapr/subscribe: {warning}");
    }
    Own::Told(own.into_iter().map(Arc::new).collect())
}

impl Own {
    /// What the app subscribes to: the declared ones, and its own, which replace a declared one of the same topic
    /// (pubsub-behaviour, section 5.5).
    pub(crate) fn merged(&self, declared: &[Arc<Declared>]) -> Vec<Arc<Declared>> {
        let own = match self {
            Self::Unasked => return declared.to_vec(),
            Self::Unreadable => return Vec::new(),
            Self::Told(own) => own,
        };
        let mut subscriptions = declared.to_vec();
        for subscription in own {
            let same = |other: &Arc<Declared>| other.pubsub == subscription.pubsub && other.topic == subscription.topic;
            match subscriptions.iter_mut().find(|other| same(other)) {
                Some(slot) => *slot = Arc::clone(subscription),
                None => subscriptions.push(Arc::clone(subscription)),
            }
        }
        subscriptions
    }
}

/// A subscription of the app with its handler and group: the component's `consumerID`, else the app's id.
pub(crate) fn of_app(
    declared: &Arc<Declared>,
    topology: &Topology,
    caller: &Caller,
    handler: &Handler,
) -> Subscription {
    let broker = topology.broker(&declared.pubsub, caller);
    let group =
        broker.map_or_else(|| caller.app_id.as_ref().to_owned(), |broker| broker.declared.group(&caller.app_id));
    Subscription { declared: Arc::clone(declared), caller: caller.clone(), group, handler: handler.clone() }
}

#[cfg(test)]
mod tests;
