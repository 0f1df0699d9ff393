//! The app's subscriptions: what is declared for it, what it asks for itself, and the task that serves each.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whimbrel_api::App;
use whimbrel_pubsub::{Caller, Handler, Subscription, Topology, deliver};
use whimbrel_resources::{Snapshot, Subscription as Declared};

/// What the app subscribes to: the declared ones, and its own, which replace a declared one of the same topic
/// (pubsub-behaviour, section 5.5). None at all if its answer cannot be read, as Dapr has it.
pub(crate) async fn of_app(snapshot: &Snapshot, app: Option<&App>, ask: bool) -> Vec<Arc<Declared>> {
    let mut subscriptions = snapshot.subscriptions.clone();
    let Some(app) = app.filter(|_| ask && !snapshot.components.is_empty()) else {
        if !ask {
            tracing::info!("Skipping programmatic subscription loading");
        }
        return subscriptions;
    };
    let answer = match app.subscriptions().await {
        Ok(answer) => answer.unwrap_or_default(),
        Err(error) => {
            tracing::error!("no subscriptions are started: {error}");
            return Vec::new();
        }
    };
    let (own, warnings) = match whimbrel_resources::programmatic(&answer) {
        Ok(own) => own,
        Err(error) => {
            tracing::error!(
                "no subscriptions are started: the app's answer to /dapr/subscribe cannot be read: {error}"
            );
            return Vec::new();
        }
    };
    for warning in warnings {
        tracing::warn!("the app's answer to /dapr/subscribe: {warning}");
    }
    for subscription in own.into_iter().map(Arc::new) {
        let same = |other: &Arc<Declared>| other.pubsub == subscription.pubsub && other.topic == subscription.topic;
        match subscriptions.iter_mut().find(|other| same(other)) {
            Some(slot) => *slot = subscription,
            None => subscriptions.push(subscription),
        }
    }
    subscriptions
}

/// The app's subscriptions with their handler and group: the component's `consumerID`, else the app's id.
pub(crate) fn for_app(
    declared: &[Arc<Declared>],
    topology: &Topology,
    caller: &Caller,
    handler: &Handler,
) -> Vec<Subscription> {
    let group = |declared: &Declared| {
        let broker = topology.broker(&declared.pubsub, caller);
        broker.map_or_else(|| caller.app_id.as_ref().to_owned(), |broker| broker.declared.group(&caller.app_id))
    };
    declared
        .iter()
        .map(|declared| Subscription {
            declared: Arc::clone(declared),
            caller: caller.clone(),
            group: group(declared),
            handler: handler.clone(),
        })
        .collect()
}

/// Starts a task for each subscription. Each of the receivers answers when its subscription is live.
pub(crate) fn start(
    subscriptions: Vec<Subscription>,
    topology: &Arc<ArcSwap<Topology>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Vec<oneshot::Receiver<()>> {
    let mut waiting = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let (ready, is_ready) = oneshot::channel();
        // The tracker is what stopping waits for.
        drop(tasks.spawn(deliver(Arc::new(subscription), Arc::clone(topology), ready, stop.clone())));
        waiting.push(is_ready);
    }
    waiting
}
