//! Starting the declared brokers: find each plugin, check the resource against its description, open it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::watch;
use whimbrel_pubsub::{Broker, Metrics, StartFailure};
use whimbrel_resources::{Component, PluginManifest, Problem, Problems, Severity};
use whimbrel_wasm::{Adapter, BrokerSettings, BrokerState, Grants, Loader, Plugin};

use crate::plugins::Search;
use crate::reload::{Replaceable, Stamp};

/// How long past `initTimeout` the reason may take that the adapter did not open.
const REASON_WAIT: Duration = Duration::from_millis(250);

/// The version that a resource means that names none.
const FIRST_VERSION: &str = "v1";

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) broker: Broker,
    /// How it stands.
    pub(crate) state: watch::Receiver<BrokerState>,
    /// What another adapter file may replace.
    pub(crate) replaceable: Replaceable,
}

/// A declared component with its plugin.
#[derive(Debug)]
pub(crate) struct Planned {
    component: Arc<Component>,
    /// Whether it may be missing or closed.
    optional: bool,
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

/// Finds the plugin of each component, and checks the resource against it: all problems at once. Those that must be there
/// must be, though their resource says `ignoreErrors`.
///
/// # Errors
/// See [`PlanError`].
pub(crate) fn plan(
    components: &[Arc<Component>],
    search: &Search,
    metrics: &Metrics,
    must: impl Fn(&Component) -> bool,
) -> Result<Vec<Planned>, PlanError> {
    let failed = |component: &Component| count_failure(metrics, component, StartFailure::Creation);
    let (mut planned, mut problems) = (Vec::new(), Vec::new());
    for component in components {
        let optional = component.ignore_errors && !must(component);
        let stamp = Stamp::of(search.source(component));
        let (plugin, manifest) = match found(component, search) {
            Ok(found) => found,
            Err(error) => {
                failed(component);
                if !optional {
                    return Err(PlanError::Plugin(initialization(component, &error)));
                }
                left_out(component, &format!("{error:#}"));
                continue;
            }
        };
        let odd = manifest.as_ref().map(|manifest| whimbrel_resources::check(component, manifest)).unwrap_or_default();
        if let Some(wrong) = odd.iter().find(|problem| problem.severity == Severity::Error) {
            failed(component);
            if optional {
                left_out(component, &wrong.to_string());
                continue;
            }
        }
        problems.extend(odd);
        planned.push(Planned { component: Arc::clone(component), optional, plugin, manifest, stamp });
    }
    let (errors, warnings): (Vec<Problem>, Vec<Problem>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if errors.is_empty() { Ok(planned) } else { Err(PlanError::Resources(Problems(errors))) }
}

/// The plugin of a component, and its description.
///
/// # Errors
/// There is none, it is broken, or it is of another version than the resource wants.
pub(crate) fn found(component: &Component, search: &Search) -> anyhow::Result<(Plugin, Option<PluginManifest>)> {
    let plugin = search.find(component)?;
    let manifest = manifest(&plugin)?;
    let has = manifest.as_ref().map(|manifest| manifest.version.as_str());
    if !is_version(&component.version, has) {
        let Component { kind, version, .. } = component;
        bail!("couldn't find message bus {kind}/{version}: the plugin is version {}", has.unwrap_or(FIRST_VERSION));
    }
    Ok((plugin, manifest))
}

/// Whether a plugin of this version is what a resource wants: as for Dapr, nothing and `v0` mean the first version. A plugin
/// without a description is whatever is wanted.
fn is_version(wanted: &str, has: Option<&str>) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    ["", "v0", FIRST_VERSION].contains(&wanted.as_str()) || has.is_none_or(|has| has.eq_ignore_ascii_case(&wanted))
}

fn count_failure(metrics: &Metrics, component: &Component, failure: StartFailure) {
    metrics.component_failed(&component.kind, &component.name, failure);
}

fn left_out(component: &Component, why: &str) {
    tracing::error!(component = component.name, "left out, as ignoreErrors says: {why}");
}

/// A plugin's description of itself, if it has one.
///
/// # Errors
/// It cannot be read.
pub(crate) fn manifest(plugin: &Plugin) -> anyhow::Result<Option<PluginManifest>> {
    let parsed = plugin.description.as_deref().map(|text| PluginManifest::parse(text, &plugin.path)).transpose();
    parsed.map_err(|error| anyhow!("{error}").context("reading the plugin's description"))
}

/// Dapr's text for a component that cannot be had, which its users' alerts look for.
pub(crate) fn initialization(component: &Component, error: &anyhow::Error) -> anyhow::Error {
    let Component { name, kind, version, .. } = component;
    anyhow!(
        "process component {name} error: [INIT_COMPONENT_FAILURE]: initialization error occurred for {name} ({kind}/{version}): {error:#}"
    )
}

/// Starts each broker and waits until it has opened, for as long as its `initTimeout` says.
///
/// # Errors
/// One did not open and it is not optional. Those that did are closed again.
pub(crate) async fn start(
    planned: Vec<Planned>,
    loader: &Loader,
    instance: &str,
    metrics: &Metrics,
) -> anyhow::Result<Vec<Started>> {
    let mut started = Vec::new();
    let mut opening = Vec::new();
    for Planned { component, optional, plugin, manifest, stamp } in planned {
        let (broker, queue) = Broker::new(Arc::clone(&component));
        let settings = settings(&component, manifest.as_ref(), instance, metrics);
        let digest = plugin.digest();
        let (state, replacer) = match adapter(loader, plugin).await {
            Ok(adapter) => adapter.start_replaceable(&broker, queue, settings),
            Err(error) => {
                count_failure(metrics, &component, StartFailure::Creation);
                if !optional {
                    return Err(initialization(&component, &error));
                }
                left_out(&component, &format!("{error:#}"));
                continue;
            }
        };
        let kind = manifest.map_or_else(|| component.kind.clone(), |manifest| manifest.kind);
        let replaceable = Replaceable { component: Arc::clone(&component), kind, replacer, digest, stamp };
        opening.push((component, optional, state.clone()));
        started.push(Started { broker, state, replaceable });
    }
    for (component, optional, state) in opening {
        match opened(&component, state.clone()).await {
            Ok(()) => {
                metrics.component_opened(&component.kind);
                tracing::info!(component = component.name, kind = component.kind, "component loaded");
            }
            Err(error) => {
                count_failure(metrics, &component, StartFailure::Init);
                if !optional {
                    return Err(initialization(&component, &error));
                }
                tracing::error!(
                    component = component.name,
                    "not open yet, and tried further, as ignoreErrors says: {error:#}"
                );
                count_late(component, state, metrics.clone());
            }
        }
    }
    Ok(started)
}

/// Counts a component once it is open after all. Ends with its worker.
fn count_late(component: Arc<Component>, mut state: watch::Receiver<BrokerState>, metrics: Metrics) {
    drop(tokio::spawn(async move {
        if state.wait_for(|state| *state == BrokerState::Ready).await.is_ok() {
            metrics.component_opened(&component.kind);
            tracing::info!(component = component.name, kind = component.kind, "component loaded");
        }
    }));
}

/// Compiles it, which takes a second a megabyte where it is not in the cache.
async fn adapter(loader: &Loader, plugin: Plugin) -> anyhow::Result<Adapter> {
    let loader = loader.clone();
    Ok(tokio::task::spawn_blocking(move || Adapter::load(&loader, &plugin)).await??)
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

fn settings(
    component: &Component,
    manifest: Option<&PluginManifest>,
    instance: &str,
    metrics: &Metrics,
) -> BrokerSettings {
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
        metrics: metrics.clone(),
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

#[cfg(test)]
mod tests;
