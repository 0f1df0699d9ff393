//! What is different between two snapshots, by how much of what runs it touches. Pure: called at each reload by whoever makes
//! what runs like the new one.
//!
//! Where a resource stands in its file is no difference, nor is a comment, a label or the order of documents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::snapshot::{Component, HandlerApp, Snapshot, Subscription};

/// What became of the resources of one kind, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<K: Ord> {
    /// Those that were not there.
    pub added: BTreeSet<K>,
    /// Those that are not there any more.
    pub removed: BTreeSet<K>,
    /// Those that are not what they were.
    pub changed: BTreeSet<K>,
}

/// The difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// By name.
    pub components: Changes<String>,
    /// By component and topic. Those of handlers are not among them.
    pub subscriptions: Changes<(String, String)>,
    /// By name; their subscriptions count.
    pub handlers: Changes<String>,
    /// Whether a timeout, a retry or a circuit breaker is another, or a `Resiliency` has come or gone.
    pub policies: bool,
}

/// How much of a running component a change touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentChange {
    /// Only what the host decides with: who may use it and which topics.
    Rules,
    /// What its adapter was opened with: another connection is needed.
    Connection,
}

/// How much of a running subscription a change touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionChange {
    /// Only what becomes of its messages: routes, dead-letter topic. It goes on.
    Rules,
    /// What the adapter was told: it must subscribe again.
    Feed,
}

/// What is different in `new`.
#[must_use]
pub fn diff(old: &Snapshot, new: &Snapshot) -> Diff {
    let component = |component: &Arc<Component>| component.name.clone();
    let subscription = |subscription: &Arc<Subscription>| (subscription.pubsub.clone(), subscription.topic.clone());
    let handler = |handler: &Arc<HandlerApp>| handler.name.clone();
    Diff {
        components: changes(&old.components, &new.components, component, |old, new| {
            component_change(old, new).is_some()
        }),
        subscriptions: changes(&old.subscriptions, &new.subscriptions, subscription, |old, new| {
            subscription_change(old, new).is_some()
        }),
        handlers: changes(&old.handlers, &new.handlers, handler, handler_differs),
        policies: old.policies != new.policies || old.resiliencies != new.resiliencies,
    }
}

/// How much of a component is another; `None`: nothing.
#[must_use]
pub fn component_change(old: &Component, new: &Component) -> Option<ComponentChange> {
    /// What its adapter is opened with, without where it stands.
    type Connection<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a [String], Duration);
    fn connection(component: &Component) -> Connection<'_> {
        let properties = component.properties.iter();
        let properties = properties.map(|property| (property.name.as_str(), property.value.reveal())).collect();
        let Component { kind, version, network, init_timeout, .. } = component;
        (kind, version, properties, network, *init_timeout)
    }
    let names = |component: &Component| {
        (component.plugin.clone(), component.consumer_id.clone(), component.topic_prefix.clone())
    };
    if connection(old) != connection(new) || names(old) != names(new) {
        return Some(ComponentChange::Connection);
    }
    let same =
        old.scopes == new.scopes && old.topic_scopes == new.topic_scopes && old.ignore_errors == new.ignore_errors;
    (!same).then_some(ComponentChange::Rules)
}

/// How much of a subscription to one topic of one component is another; `None`: nothing.
#[must_use]
pub fn subscription_change(old: &Subscription, new: &Subscription) -> Option<SubscriptionChange> {
    if old.metadata != new.metadata || old.bulk != new.bulk {
        return Some(SubscriptionChange::Feed);
    }
    (old != new).then_some(SubscriptionChange::Rules)
}

/// Whether the instances of a handler can stay, whatever it subscribes to.
#[must_use]
pub fn same_pool(old: &HandlerApp, new: &HandlerApp) -> bool {
    old.file == new.file && old.app_id == new.app_id && old.limits == new.limits
}

fn handler_differs(old: &HandlerApp, new: &HandlerApp) -> bool {
    !same_pool(old, new) || old.subscriptions != new.subscriptions
}

impl Diff {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.components.is_empty() && self.subscriptions.is_empty() && self.handlers.is_empty() && !self.policies
    }
}

impl<K: Ord> Changes<K> {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// How many: `+1 -0 ~2` for one that is new, none that is gone, two that have changed.
impl<K: Ord> fmt::Display for Changes<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{} -{} ~{}", self.added.len(), self.removed.len(), self.changed.len())
    }
}

/// The order in which they are listed: what is as it was, as it was listed; then what has changed; then what is new
/// (pubsub-behaviour, section 5.8).
#[must_use]
pub fn order<K: Eq + Hash + Clone>(listed: &[K], wanted: &[K], has_changed: impl Fn(&K) -> bool) -> Vec<K> {
    let places: HashMap<&K, usize> = listed.iter().enumerate().map(|(place, key)| (key, place)).collect();
    let mut ordered = wanted.to_vec();
    ordered.sort_by_key(|key| match places.get(key) {
        Some(place) if !has_changed(key) => (0, *place),
        Some(_) => (1, 0),
        None => (2, 0),
    });
    ordered
}

fn changes<T, K: Ord>(
    old: &[Arc<T>],
    new: &[Arc<T>],
    key: impl Fn(&Arc<T>) -> K,
    differ: impl Fn(&T, &T) -> bool,
) -> Changes<K> {
    let mut before: BTreeMap<K, &Arc<T>> = old.iter().map(|one| (key(one), one)).collect();
    let (mut added, mut changed) = (BTreeSet::new(), BTreeSet::new());
    for one in new {
        match before.remove(&key(one)) {
            None => drop(added.insert(key(one))),
            Some(was) if differ(was, one) => drop(changed.insert(key(one))),
            Some(_) => {}
        }
    }
    Changes { added, removed: before.into_keys().collect(), changed }
}

#[cfg(test)]
mod tests;
