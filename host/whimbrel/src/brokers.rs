//! Starting the declared brokers: find each plugin, check the resource against its description, open it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use whimbrel_pubsub::Broker;
use whimbrel_resources::{Component, PluginManifest, Problem, Problems, Severity, Snapshot};
use whimbrel_wasm::{Adapter, BrokerSettings, BrokerState, Grants, Loader, Plugin};

use crate::plugins::Search;
use crate::reload::{Replaceable, Stamp};

/// How long past `initTimeout` the reason may take that the adapter did not open.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// The brokers that run, and how each stands.
#[derive(Debug, Default)]
pub(crate) struct Brokers {
    /// By resource name.
    pub(crate) running: HashMap<String, Broker>,
    /// In the order of the resources.
    pub(crate) states: Vec<(String, watch::Receiver<BrokerState>)>,
    /// What other adapter files may replace.
    pub(crate) replaceable: Vec<Replaceable>,
}

/// A declared component with its plugin.
#[derive(Debug)]
pub(crate) struct Planned {
    component: Arc<Component>,
    plugin: Plugin,
    manifest: Option<PluginManifest>,
    /// The plugin's file, before it was read.
    stamp: Stamp,
}

/// Why a component has no plugin, or what is wrong with its resource.
#[derive(Debug)]
pub(crate) enum PlanError {
    /// Some resource is wrong.
    Resources(Problems),
    /// Some plugin is missing or broken.
    Plugin(anyhow::Error),
}

/// Finds the plugin of each component, and checks the resource against it: all problems at once.
///
/// # Errors
/// See [`PlanError`].
pub(crate) fn plan(snapshot: &Snapshot, search: &Search) -> Result<Vec<Planned>, PlanError> {
    let (mut planned, mut problems) = (Vec::new(), Vec::new());
    for component in &snapshot.components {
        let stamp = Stamp::of(search.source(component));
        let plugin = match search.find(component) {
            Ok(plugin) => plugin,
            Err(error) if component.ignore_errors => {
                tracing::error!(component = component.name, "left out, as ignoreErrors says: {error:#}");
                continue;
            }
            Err(error) => return Err(PlanError::Plugin(initialization(component, &error))),
        };
        let manifest = match plugin.description.as_deref().map(|text| PluginManifest::parse(text, &plugin.path)) {
            None => None,
            Some(Ok(manifest)) => Some(manifest),
            Some(Err(error)) => {
                return Err(PlanError::Plugin(anyhow!("{error}").context("reading the plugin's description")));
            }
        };
        if let Some(manifest) = &manifest {
            problems.extend(whimbrel_resources::check(component, manifest));
        }
        planned.push(Planned { component: Arc::clone(component), plugin, manifest, stamp });
    }
    let (errors, warnings): (Vec<Problem>, Vec<Problem>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if errors.is_empty() { Ok(planned) } else { Err(PlanError::Resources(Problems(errors))) }
}

/// Dapr's text for a component that cannot be had, which its users' alerts look for.
fn initialization(component: &Component, error: &anyhow::Error) -> anyhow::Error {
    let Component { name, kind, version, .. } = component;
    anyhow!(
        "process component {name} error: [INIT_COMPONENT_FAILURE]: initialization error occurred for {name} ({kind}/{version}): {error:#}"
    )
}

/// Starts each broker and waits until it has opened, for as long as its `initTimeout` says.
///
/// # Errors
/// One did not open and its resource does not say `ignoreErrors`.
pub(crate) async fn start(planned: Vec<Planned>, loader: &Loader, instance: &str) -> anyhow::Result<Brokers> {
    let mut brokers = Brokers::default();
    let mut opening = Vec::new();
    for Planned { component, plugin, manifest, stamp } in planned {
        let (broker, queue) = Broker::new(Arc::clone(&component));
        let settings = settings(&component, manifest.as_ref(), instance);
        let (state, replacer) = match Adapter::load(loader, &plugin) {
            Ok(adapter) => adapter.start_replaceable(&broker, queue, settings),
            Err(error) if component.ignore_errors => {
                tracing::error!(component = component.name, "left out, as ignoreErrors says: {error}");
                continue;
            }
            Err(error) => return Err(initialization(&component, &error.into())),
        };
        brokers.running.insert(component.name.clone(), broker);
        brokers.states.push((component.name.clone(), state.clone()));
        let kind = manifest.map_or_else(|| component.kind.clone(), |manifest| manifest.kind);
        let digest = plugin.digest();
        brokers.replaceable.push(Replaceable { component: Arc::clone(&component), kind, replacer, digest, stamp });
        opening.push((component, state));
    }
    for (component, state) in opening {
        match opened(&component, state).await {
            Err(error) if component.ignore_errors => {
                tracing::error!(
                    component = component.name,
                    "not open yet, and tried further, as ignoreErrors says: {error:#}"
                );
            }
            Err(error) => return Err(initialization(&component, &error)),
            Ok(()) => tracing::info!(component = component.name, kind = component.kind, "component loaded"),
        }
    }
    Ok(brokers)
}

/// What an adapter may reach for a component: the addresses in its settings, as the description marks them, and what the
/// resource grants besides.
pub(crate) fn grants(component: &Component, manifest: Option<&PluginManifest>) -> Grants {
    let mut grants = Grants::default();
    for (host, port) in manifest.map(|manifest| manifest.addresses(component)).unwrap_or_default() {
        grants.allow(&host, port);
    }
    for pattern in &component.network {
        grants.allow_pattern(pattern);
    }
    grants
}

fn settings(component: &Component, manifest: Option<&PluginManifest>, instance: &str) -> BrokerSettings {
    BrokerSettings {
        name: component.name.clone(),
        properties: component
            .properties
            .iter()
            .map(|property| (property.name.clone(), property.value.clone()))
            .collect(),
        instance: instance.to_owned(),
        grants: grants(component, manifest),
        open_wait: component.init_timeout,
        batch_messages_max: None,
        trap_every: std::env::var("WHIMBREL_TRAP_ADAPTERS_EVERY").ok().and_then(|messages| messages.parse().ok()),
    }
}

/// Waits until a broker serves.
async fn opened(component: &Component, mut state: watch::Receiver<BrokerState>) -> anyhow::Result<()> {
    let settled =
        state.wait_for(|state| matches!(state, BrokerState::Ready | BrokerState::Failed(_) | BrokerState::Closed));
    match tokio::time::timeout(component.init_timeout + REASON_WAIT, settled).await {
        Ok(Ok(state)) => match &*state {
            BrokerState::Ready => return Ok(()),
            other => return Err(anyhow!("{other}")),
        },
        Ok(Err(_)) => return Err(anyhow!("its worker ended")),
        Err(_) => {}
    }
    let state = state.borrow().to_string();
    Err(anyhow!("{state}")).with_context(|| format!("init timeout of {:?} exceeded", component.init_timeout))
}
