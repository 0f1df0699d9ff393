//! The spine: folders to documents, documents to resources by their kind, resources to one snapshot.
//!
//! Called by the binary at start and at each reload. Which resource wins over which is decided here, and nowhere else.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::folder::{self, Document};
use crate::place::{Place, quoted};
use crate::problem::{Problem, Problems};
use crate::raw::resiliency::Resiliencies;
use crate::raw::{self, component, handler, secret_store, subscription};
use crate::secrets::Store;
use crate::snapshot::{Component, HANDLER_INSTANCES_MAX, HandlerApp, Snapshot, Subscription};
use crate::surroundings::Surroundings;
use crate::yaml::Value;

/// Reads every resource in the folders, in the order given, that concerns one of the apps or a handler declared there.
/// The first app is who `{appID}` stands for.
///
/// # Errors
/// Everything that is wrong, warnings included, if at least one thing keeps the resources from being used.
pub fn load(paths: &[PathBuf], app_ids: &[&str], surroundings: &Surroundings) -> Result<Snapshot, Problems> {
    sound(survey(paths, app_ids, surroundings))
}

/// The same for whoever only looks: what is sound, beside everything that is wrong with the rest.
#[must_use]
pub fn survey(paths: &[PathBuf], app_ids: &[&str], surroundings: &Surroundings) -> (Snapshot, Problems) {
    let mut problems = Vec::new();
    let documents = documents(paths, &mut problems);
    snapshot(&documents, app_ids, surroundings, problems)
}

/// The apps that resources name in their `scopes`, each once, in order: what concerns one of them is not looked at for
/// another.
#[must_use]
pub fn scoped_apps(paths: &[PathBuf]) -> Vec<String> {
    let documents = documents(paths, &mut Vec::new());
    let roots = documents.iter().map(|document| Place::root(&document.file, &document.root));
    let known = roots.filter(|root| !matches!(Kind::of(root), Kind::Ignored | Kind::Unknown));
    let mut seen = HashSet::new();
    known.flat_map(|root| raw::scopes(&root, &mut Vec::new())).filter(|app| seen.insert(app.clone())).collect()
}

fn documents(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<Document> {
    paths.iter().flat_map(|path| folder::documents(path, problems)).collect()
}

/// What is sound, if nothing is wrong.
fn sound((mut snapshot, problems): (Snapshot, Problems)) -> Result<Snapshot, Problems> {
    if problems.has_errors() {
        return Err(problems);
    }
    snapshot.warnings = problems.0;
    Ok(snapshot)
}

/// The same of documents that are at hand, and what was wrong with reading them.
pub(crate) fn snapshot(
    documents: &[Document],
    app_ids: &[&str],
    surroundings: &Surroundings,
    problems: Vec<Problem>,
) -> (Snapshot, Problems) {
    let mut loading = Loading::new(documents, app_ids, surroundings, problems);
    // First, wherever they stand: any component may have its secrets there.
    documents.iter().for_each(|document| loading.take_store(document));
    for document in documents {
        loading.take(document);
    }
    loading.finish()
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Component,
    Subscription(subscription::Version),
    Resiliency,
    Handler,
    /// Of Dapr's, without meaning here, or for the conformance kit.
    Ignored,
    Unknown,
}

impl Kind {
    /// Values of `apiVersion` and `kind` must be exact, other than the keys.
    fn of(root: &Place<'_>) -> Self {
        let text = |key: &str| root.text(key, &mut Vec::new()).unwrap_or_default();
        match (text("apiVersion"), text("kind")) {
            ("dapr.io/v1alpha1", "Component") => Self::Component,
            ("dapr.io/v1alpha1", "Subscription") => Self::Subscription(subscription::Version::V1Alpha1),
            ("dapr.io/v2alpha1", "Subscription") => Self::Subscription(subscription::Version::V2Alpha1),
            ("dapr.io/v1alpha1", "Resiliency") => Self::Resiliency,
            ("whimbrel.dev/v1alpha1", "Handler") => Self::Handler,
            ("dapr.io/v1alpha1", "Configuration" | "HTTPEndpoint") | ("whimbrel.dev/v1alpha1", "Conformance") => {
                Self::Ignored
            }
            _ => Self::Unknown,
        }
    }
}

/// A snapshot in the making.
struct Loading<'a> {
    app_id: &'a str,
    app_ids: HashSet<&'a str>,
    surroundings: &'a Surroundings,
    stores: HashMap<String, Store>,
    /// What secrets are looked for in.
    files: RefCell<BTreeSet<PathBuf>>,
    /// The apps that are handlers: components are for them too, `Subscription` resources are not.
    handler_ids: HashSet<String>,
    components: HashMap<String, Arc<Component>>,
    handlers: HashSet<String>,
    /// In order; `None` where a later one of the same name has replaced it.
    subscriptions: Vec<Option<(Subscription, Problem)>>,
    subscription_names: HashMap<String, usize>,
    resiliencies: Resiliencies,
    snapshot: Snapshot,
    problems: Vec<Problem>,
}

impl<'a> Loading<'a> {
    fn new(
        documents: &[Document],
        app_ids: &[&'a str],
        surroundings: &'a Surroundings,
        problems: Vec<Problem>,
    ) -> Self {
        let roots = documents.iter().map(|document| Place::root(&document.file, &document.root));
        let handlers = roots.filter(|root| Kind::of(root) == Kind::Handler);
        Self {
            app_id: app_ids.first().copied().unwrap_or_default(),
            app_ids: app_ids.iter().copied().collect(),
            surroundings,
            stores: HashMap::new(),
            files: RefCell::default(),
            handler_ids: handlers.filter_map(|root| handler::app_id(&root)).collect(),
            components: HashMap::new(),
            handlers: HashSet::new(),
            subscriptions: Vec::new(),
            subscription_names: HashMap::new(),
            resiliencies: Resiliencies::default(),
            snapshot: Snapshot::default(),
            problems,
        }
    }

    fn take_store(&mut self, document: &Document) {
        let root = Place::root(&document.file, &document.root);
        if Kind::of(&root) != Kind::Component || !secret_store::is_one(&root) || !self.is_here(&root) {
            return;
        }
        if self.in_scope(&root, true).is_none() {
            return;
        }
        let Some((name, store)) = secret_store::read(&root, &mut self.problems) else { return };
        if self.stores.insert(name.clone(), store).is_some() {
            let what = format!("duplicate definition of Component name {name}");
            self.problems.push(root.error(what, "each needs a name of its own"));
        }
    }

    /// Whether a component is of this namespace, as far as both have one (pubsub-behaviour, section 9).
    fn is_here(&self, root: &Place<'_>) -> bool {
        let metadata = root.section("metadata", &mut Vec::new());
        let given = metadata.and_then(|metadata| metadata.filled("namespace", &mut Vec::new()));
        given.is_none_or(|given| self.surroundings.own_namespace().is_none_or(|own| own == given))
    }

    fn take(&mut self, document: &Document) {
        let root = Place::root(&document.file, &document.root);
        let before = self.problems.len();
        match Kind::of(&root) {
            Kind::Component => self.component(&root),
            Kind::Subscription(version) => self.subscription(&root, version),
            Kind::Resiliency => self.resiliency(&root),
            Kind::Handler => self.handler(&root),
            Kind::Ignored => {}
            Kind::Unknown => self.unknown(&root),
        }
        // Readers go by key; whoever mends the file goes by line.
        self.problems[before..].sort_by_key(|problem| problem.at.line);
    }

    fn unknown(&mut self, root: &Place<'_>) {
        let mut text = |key: &str| root.text(key, &mut self.problems).unwrap_or_default();
        let what = match root.node.value {
            Value::Map(_) => format!(
                "not a resource that is known here, ignored: apiVersion {}, kind {}",
                quoted(text("apiVersion")),
                quoted(text("kind"))
            ),
            _ => "not a resource, ignored".to_owned(),
        };
        self.problems.push(root.warning(what, ""));
    }

    /// Out of scope, a component is not even looked at: it may be wrong, and it may share its name.
    fn component(&mut self, root: &Place<'_>) {
        if secret_store::is_one(root) || !self.is_here(root) {
            return;
        }
        let Some(scopes) = self.in_scope(root, true) else { return };
        let sources = component::Sources {
            app_id: self.app_id,
            surroundings: self.surroundings,
            stores: &self.stores,
            files: &self.files,
        };
        let Some(read) = component::read(root, scopes, &sources, &mut self.problems) else { return };
        if self.surroundings.denies(&read.kind, &read.version) {
            let what = format!("not loaded: the configuration denies {}/{}", read.kind, read.version);
            self.problems.push(root.warning(what, "spec.components.deny"));
            return;
        }
        if self.stores.contains_key(&read.name) {
            let what = format!("duplicate definition of Component name {}", read.name);
            self.problems.push(root.error(what, "a secret store has this name"));
            return;
        }
        if let Some(existing) = self.components.get(&read.name) {
            let what = format!(
                "duplicate definition of Component name {} ({}/{}) with existing {} ({}/{})",
                read.name, read.kind, read.version, existing.name, existing.kind, existing.version
            );
            let hint = format!("the other one is {}:{}", existing.at.file.display(), existing.at.line);
            self.problems.push(root.error(what, hint));
            return;
        }
        let read = Arc::new(read);
        self.components.insert(read.name.clone(), Arc::clone(&read));
        self.snapshot.components.push(read);
    }

    /// Of two of one name the later replaces the earlier and stands at the end. Those without a name are left alone.
    fn subscription(&mut self, root: &Place<'_>, version: subscription::Version) {
        let Some(scopes) = self.in_scope(root, false) else { return };
        let Some(read) = subscription::read(root, version, scopes, &mut self.problems) else { return };
        if !read.name.is_empty() {
            let replaced = self.subscription_names.insert(read.name.clone(), self.subscriptions.len());
            if let Some(slot) = replaced.and_then(|index| self.subscriptions.get_mut(index)) {
                *slot = None;
                let what = format!("replaces the earlier subscription of the same name {}", quoted(&read.name));
                self.problems.push(root.warning(what, "give it another name to keep both"));
            }
        }
        let lost = root.warning(String::new(), "");
        self.subscriptions.push(Some((read, lost)));
    }

    fn resiliency(&mut self, root: &Place<'_>) {
        if self.in_scope(root, true).is_none() {
            return;
        }
        let metadata = root.section("metadata", &mut self.problems);
        let name =
            metadata.and_then(|metadata| metadata.text("name", &mut self.problems)).unwrap_or_default().to_owned();
        self.resiliencies.read(&name, root, &mut self.problems);
        if !self.snapshot.resiliencies.contains(&name) {
            self.snapshot.resiliencies.push(name);
        }
    }

    fn handler(&mut self, root: &Place<'_>) {
        let Some(read) = handler::read(root, &mut self.problems) else { return };
        let HandlerApp { name, .. } = &read;
        if !self.handlers.insert(name.clone()) {
            let what = format!("duplicate definition of Handler name {name}");
            self.problems.push(root.error(what, "each needs a name of its own"));
            return;
        }
        let instances = self.snapshot.handlers.iter().map(|handler| handler.limits.instances).sum::<u32>();
        if instances + read.limits.instances > HANDLER_INSTANCES_MAX {
            let what = format!("with this one, the handlers have {} instances", instances + read.limits.instances);
            let hint = format!("all of them together may have {HANDLER_INSTANCES_MAX}: lower spec.limits.instances");
            self.problems.push(root.error(what, hint));
        }
        self.snapshot.handlers.push(Arc::new(read));
    }

    /// The scopes, if they let in one of the apps.
    fn in_scope(&mut self, root: &Place<'_>, or_handlers: bool) -> Option<Vec<String>> {
        let scopes = raw::scopes(root, &mut self.problems);
        let known = |id: &String| self.app_ids.contains(id.as_str()) || (or_handlers && self.handler_ids.contains(id));
        (scopes.is_empty() || scopes.iter().any(known)).then_some(scopes)
    }

    /// For one topic of one component the first subscription wins (pubsub-behaviour, section 5.5).
    fn settle_subscriptions(&mut self) {
        let mut seen = HashMap::new();
        for (subscription, lost) in self.subscriptions.drain(..).flatten() {
            let key = (subscription.pubsub.clone(), subscription.topic.clone());
            match seen.get(&key) {
                None => {
                    seen.insert(key, subscription.name.clone());
                    self.snapshot.subscriptions.push(Arc::new(subscription));
                }
                Some(first) => {
                    let (pubsub, topic) = key;
                    let what = format!("ignored: {first:?} already subscribes to {topic:?} of {pubsub:?}");
                    self.problems.push(Problem { what, ..lost });
                }
            }
        }
    }

    fn finish(mut self) -> (Snapshot, Problems) {
        self.settle_subscriptions();
        self.snapshot.policies = self.resiliencies.resolve(&mut self.problems);
        self.snapshot.files = self.files.into_inner().into_iter().collect();
        (self.snapshot, Problems(self.problems))
    }
}

#[cfg(test)]
pub(crate) mod tests;
