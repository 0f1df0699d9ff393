//! Starting the declared handler components.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use whimbrel_pubsub::{Caller, Handler, Subscription, Topology};
use whimbrel_resources::Snapshot;
use whimbrel_wasm::{HandlerSettings, Loader, Plugin, start_handler};

/// Starts each handler's pool, and gives its subscriptions.
///
/// # Errors
/// A file is no handler; the text names it and the resource.
pub(crate) fn start(
    snapshot: &Snapshot,
    loader: &Loader,
    topology: &Arc<ArcSwap<Topology>>,
) -> anyhow::Result<Vec<Subscription>> {
    let mut subscriptions = Vec::new();
    for declared in &snapshot.handlers {
        let context = || format!("{}:{}: handler {}", declared.at.file.display(), declared.at.line, declared.name);
        let plugin = Plugin::read(&declared.file).with_context(context)?;
        let caller = Caller { app_id: Arc::from(declared.app_id.as_str()) };
        let (handler, queue) = Handler::new();
        let settings = HandlerSettings {
            name: declared.name.clone(),
            caller: caller.clone(),
            limits: declared.limits.clone(),
            topology: Arc::clone(topology),
        };
        start_handler(loader, &plugin, queue, settings).with_context(context)?;
        tracing::info!(handler = declared.name, app_id = declared.app_id, "handler loaded");
        for subscription in &declared.subscriptions {
            subscriptions.push(Subscription {
                declared: Arc::clone(subscription),
                caller: caller.clone(),
                // A component's own consumerID is for the app the host stands beside: two apps must not compete.
                group: declared.app_id.clone(),
                handler: handler.clone(),
            });
        }
    }
    Ok(subscriptions)
}
