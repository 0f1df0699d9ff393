//! `whimbrel check`: validates resources as the host does at its start, in the same words, and runs nothing. Files are read,
//! plugins are not compiled.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;
use whimbrel_resources::{
    Component, HandlerApp, PluginManifest, Position, Problem, Problems, Severity, Snapshot, Surroundings,
};
use whimbrel_wasm::Plugin;

use crate::args::CheckArguments;
use crate::brokers;
use crate::error::Exit;
use crate::plugins::Search;

/// Apps that resources are validated for, where none is given and the scopes name more.
const APPS_MAX: usize = 100;

/// Whose resources are looked at first where no app is given: those of any app.
const ANY_APP: &str = "any-app";

/// Prints what is wrong and what there is. It succeeds if nothing keeps the resources from being used.
pub(crate) fn answer(arguments: &CheckArguments) -> Exit {
    let checked = Checked::of(arguments);
    let text = if arguments.json { checked.json() } else { checked.lines() };
    // Whoever reads may have seen enough: a closed pipe is no failure.
    std::io::stdout().write_all(text.as_bytes()).ok();
    if checked.problems.has_errors() { Exit::Failed } else { Exit::Drained }
}

/// What there is, each once, however many apps it is for.
#[derive(Default)]
struct Found {
    components: HashSet<(PathBuf, usize)>,
    subscriptions: HashSet<(String, String, String)>,
    handlers: HashSet<(PathBuf, usize)>,
    resiliencies: HashSet<String>,
}

/// The plugin a component wants: its type, its version, and the file that the resource names.
type Wanted = (String, String, Option<PathBuf>);

/// What was found so far.
struct Checked {
    search: Search,
    /// By type and file: what the plugin says of its settings, or why there is none.
    manifests: HashMap<Wanted, Result<Option<PluginManifest>, String>>,
    found: Found,
    problems: Problems,
    told: HashSet<String>,
}

impl Checked {
    fn of(arguments: &CheckArguments) -> Self {
        let mut checked = Self {
            search: Search::new(&arguments.plugins),
            manifests: HashMap::new(),
            found: Found::default(),
            problems: Problems(Vec::new()),
            told: HashSet::new(),
        };
        let surroundings = match &arguments.namespace {
            Some(namespace) => Surroundings::of_process().in_namespace(namespace),
            None => Surroundings::of_process(),
        };
        for app in checked.apps(arguments) {
            let (snapshot, problems) = whimbrel_resources::survey(&arguments.folders, &[&app], &surroundings);
            checked.note(problems.0);
            checked.take(&snapshot);
        }
        checked
    }

    /// Whose resources are looked at.
    fn apps(&mut self, arguments: &CheckArguments) -> Vec<String> {
        if let Some(app) = &arguments.app_id {
            return vec![app.clone()];
        }
        let mut apps = vec![ANY_APP.to_owned()];
        apps.extend(whimbrel_resources::scoped_apps(&arguments.folders));
        if apps.len() > APPS_MAX
            && let Some(folder) = arguments.folders.first()
        {
            let what = format!("the scopes name {} apps, and only the first {APPS_MAX} were looked at", apps.len());
            let at = Position { file: folder.clone(), line: 1 };
            self.note([problem(Severity::Warning, &at, "scopes", what, "name one with --app-id")]);
            apps.truncate(APPS_MAX);
        }
        apps
    }

    /// What one app has, and what its plugins think of it.
    fn take(&mut self, snapshot: &Snapshot) {
        let place = |at: &Position| (at.file.clone(), at.line);
        let handlers = snapshot.handlers.iter();
        let subscriptions =
            snapshot.subscriptions.iter().chain(handlers.clone().flat_map(|handler| &handler.subscriptions));
        let key = |subscription: &std::sync::Arc<whimbrel_resources::Subscription>| {
            (subscription.name.clone(), subscription.pubsub.clone(), subscription.topic.clone())
        };
        self.found.components.extend(snapshot.components.iter().map(|component| place(&component.at)));
        self.found.subscriptions.extend(subscriptions.map(key));
        self.found.handlers.extend(handlers.map(|handler| place(&handler.at)));
        self.found.resiliencies.extend(snapshot.resiliencies.iter().cloned());
        for component in &snapshot.components {
            let problems = self.component(component);
            self.note(problems);
        }
        self.note(snapshot.handlers.iter().filter_map(|handler| self::handler(handler)));
    }

    /// What the plugin says of a component's settings. A plugin that is not there would keep the host from starting.
    fn component(&mut self, component: &Component) -> Vec<Problem> {
        let key = (component.kind.clone(), component.version.clone(), component.plugin.clone());
        let search = &self.search;
        let manifest = self.manifests.entry(key).or_insert_with(|| {
            let found = brokers::found(component, search);
            found.map(|(_, manifest)| manifest).map_err(|error| format!("{error:#}"))
        });
        match manifest {
            Ok(Some(manifest)) => whimbrel_resources::check(component, manifest),
            Ok(None) => Vec::new(),
            Err(why) => {
                let severity = if component.ignore_errors { Severity::Warning } else { Severity::Error };
                let what = format!("{:#}", brokers::initialization(component, &anyhow::anyhow!("{why}")));
                vec![problem(severity, &component.at, "spec.type", what, "--plugins names a folder with more plugins")]
            }
        }
    }

    /// Each problem once, though several apps have it.
    fn note(&mut self, problems: impl IntoIterator<Item = Problem>) {
        let told = &mut self.told;
        self.problems.0.extend(problems.into_iter().filter(|problem| told.insert(problem.to_string())));
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.0.iter().filter(|problem| problem.severity == severity).count()
    }

    fn lines(&self) -> String {
        let lines = self.problems.0.iter().map(|problem| format!("{}: {problem}\n", word(problem.severity)));
        let Found { components, subscriptions, handlers, resiliencies } = &self.found;
        let last = [
            counted(components.len(), "component"),
            counted(subscriptions.len(), "subscription"),
            counted(handlers.len(), "handler"),
            format!("{} resiliency", resiliencies.len()),
            counted(self.count(Severity::Error), "error"),
            counted(self.count(Severity::Warning), "warning"),
        ];
        lines.collect::<String>() + &last.join(", ") + "\n"
    }

    fn json(&self) -> String {
        let problem = |problem: &Problem| {
            let Problem { severity, at, key, what, hint } = problem;
            json!({"severity": word(*severity), "file": at.file, "line": at.line, "key": key, "what": what, "hint": hint})
        };
        let Found { components, subscriptions, handlers, resiliencies } = &self.found;
        let found = json!({
            "components": components.len(), "subscriptions": subscriptions.len(),
            "handlers": handlers.len(), "resiliencies": resiliencies.len(),
        });
        let problems: Vec<_> = self.problems.0.iter().map(problem).collect();
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        json!({"found": found, "errors": errors, "warnings": warnings, "problems": problems}).to_string() + "\n"
    }
}

/// What is wrong with a handler's file.
fn handler(handler: &HandlerApp) -> Option<Problem> {
    let error = Plugin::read(&handler.file).err()?;
    let what = format!("handler {}: {error}", handler.name);
    Some(problem(Severity::Error, &handler.at, "", what, ""))
}

fn problem(severity: Severity, at: &Position, key: &str, what: String, hint: &str) -> Problem {
    Problem { severity, at: at.clone(), key: key.to_owned(), what, hint: hint.to_owned() }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
