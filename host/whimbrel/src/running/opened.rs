//! What must be opened before what runs can become like a snapshot. Called by `running`; whatever fails here leaves what
//! runs as it is.

use std::sync::Arc;

use whimbrel_resources::{Component, ComponentChange, HandlerApp, Snapshot, component_change};

use super::Running;
use crate::brokers::{self, PlanError, Started};
use crate::handlers::Pool;

/// Adapters and handlers that are ready and serve nobody yet. Dropped, they close.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) brokers: Vec<Started>,
    /// By name.
    pub(super) pools: Vec<(String, Pool)>,
}

impl Opened {
    pub(super) fn is_empty(&self) -> bool {
        self.brokers.is_empty() && self.pools.is_empty()
    }
}

impl Running {
    /// Opens what a snapshot has and what does not run yet as it is there.
    pub(super) async fn open(&mut self, snapshot: &Snapshot) -> anyhow::Result<Opened> {
        let brokers = self.open_brokers(snapshot).await?;
        let mut pools = Vec::new();
        for handler in &snapshot.handlers {
            if let Some(pool) = self.open_pool(handler).await? {
                pools.push((handler.name.clone(), pool));
            }
        }
        Ok(Opened { brokers, pools })
    }

    /// One that runs goes on until its successor is open, whatever `ignoreErrors` says of it.
    async fn open_brokers(&self, snapshot: &Snapshot) -> anyhow::Result<Vec<Started>> {
        let running = self.ground.topology.load_full();
        let needed = |component: &&Arc<Component>| {
            running
                .brokers
                .get(&component.name)
                .is_none_or(|broker| component_change(&broker.declared, component) == Some(ComponentChange::Connection))
        };
        let components: Vec<_> = snapshot.components.iter().filter(needed).cloned().collect();
        if components.is_empty() {
            return Ok(Vec::new());
        }
        let search = Arc::clone(&self.ground.search);
        let metrics = running.environment.metrics.clone();
        let counted = metrics.clone();
        let planning = tokio::task::spawn_blocking(move || {
            brokers::plan(&components, &search, &counted, |component| running.brokers.contains_key(&component.name))
        });
        let planned = planning.await?.map_err(|error| match error {
            PlanError::Resources(problems) => anyhow::Error::msg(problems.to_string()),
            PlanError::Plugin(error) => error,
        })?;
        brokers::start(planned, &self.ground.loader, &self.ground.instance, &metrics).await
    }

    /// The instances that a handler needs and does not have. A file that is no handler any more leaves those that run.
    async fn open_pool(&mut self, handler: &Arc<HandlerApp>) -> anyhow::Result<Option<Pool>> {
        let running = self.pools.get_mut(&handler.name).filter(|pool| pool.fits(handler));
        if running.as_ref().is_some_and(|pool| !pool.is_stale()) {
            return Ok(None);
        }
        match (Pool::start(handler, &self.ground.loader, &self.ground.topology).await, running) {
            (Ok(pool), _) => Ok(Some(pool)),
            (Err(error), Some(running)) => {
                running.keep();
                tracing::error!(handler = handler.name, "not taken, the running handler serves on: {error:#}");
                Ok(None)
            }
            (Err(error), None) => Err(error),
        }
    }
}
