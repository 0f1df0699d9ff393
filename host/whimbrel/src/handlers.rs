//! The declared handler components: a pool of instances for each.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use whimbrel_pubsub::{Caller, Handler, Subscription, Topology};
use whimbrel_resources::{HandlerApp, Subscription as Declared, same_pool};
use whimbrel_wasm::{HandlerSettings, Loader, Plugin, start_handler};

use crate::plugins::Source;
use crate::reload::Stamp;

/// The instances of one handler. They end when the last subscription that delivers to them is done.
#[derive(Debug)]
pub(crate) struct Pool {
    declared: Arc<HandlerApp>,
    handler: Handler,
    /// Its file as it was when it was looked at last, taken or not.
    seen: Stamp,
}

impl Pool {
    /// Starts one.
    ///
    /// # Errors
    /// The file is no handler; the text names it and the resource.
    pub(crate) async fn start(
        declared: &Arc<HandlerApp>,
        loader: &Loader,
        topology: &Arc<ArcSwap<Topology>>,
    ) -> anyhow::Result<Self> {
        let (handler, queue) = Handler::new();
        let settings = HandlerSettings {
            name: declared.name.clone(),
            caller: caller(declared),
            limits: declared.limits.clone(),
            topology: Arc::clone(topology),
        };
        let seen = stamp(declared);
        let (file, loader) = (declared.file.clone(), loader.clone());
        let starting = tokio::task::spawn_blocking(move || {
            let plugin = Plugin::read(&file)?;
            start_handler(&loader, &plugin, queue, settings)
        });
        let started = starting.await.map_err(anyhow::Error::from).and_then(|started| Ok(started?));
        started.with_context(|| {
            format!("{}:{}: handler {}", declared.at.file.display(), declared.at.line, declared.name)
        })?;
        tracing::info!(handler = declared.name, app_id = declared.app_id, "handler loaded");
        Ok(Self { declared: Arc::clone(declared), handler, seen })
    }

    /// Whether its instances are what the resource asks for, its file apart.
    pub(crate) fn fits(&self, declared: &HandlerApp) -> bool {
        same_pool(&self.declared, declared)
    }

    /// Whether its file is another since it was looked at last.
    pub(crate) fn is_stale(&self) -> bool {
        stamp(&self.declared) != self.seen
    }

    /// Its file as it is now was looked at, and is no good.
    pub(crate) fn keep(&mut self) {
        self.seen = stamp(&self.declared);
    }

    /// One of its subscriptions.
    pub(crate) fn subscription(&self, declared: &Arc<Declared>) -> Subscription {
        Subscription {
            declared: Arc::clone(declared),
            caller: caller(&self.declared),
            // A component's own consumerID is for the app the host stands beside: two apps must not compete.
            group: self.declared.app_id.clone(),
            handler: self.handler.clone(),
        }
    }
}

fn caller(declared: &HandlerApp) -> Caller {
    Caller { app_id: Arc::from(declared.app_id.as_str()) }
}

fn stamp(declared: &HandlerApp) -> Stamp {
    Stamp::of(Some(Source::File(declared.file.clone())))
}
