//! Dapr's `Configuration` (`--config`): what of it means something to a host of messages (pubsub-behaviour, sections 9, 12.6
//! and 13). Called by the binary at start.
//!
//! Absent on purpose: doing what it says.

use std::path::{Path, PathBuf};

use crate::folder;
use crate::metrics_rule::MetricsRule;
use crate::path_pattern::PathPattern;
use crate::place::Place;
use crate::problem::{Position, Problem, Problems, Severity};
use crate::raw;
use crate::surroundings::Surroundings;
use crate::traces::Tracing;

/// Files that may be named.
const FILES_MAX: usize = 64;

/// What the operator configured; what was not said is as if there were no such file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Configuration {
    /// `spec.api`: what of the API may be called.
    pub api: ApiAccess,
    /// `spec.logging.apiLogging`.
    pub api_logging: ApiLogging,
    /// `spec.tracing`.
    pub tracing: Tracing,
    /// `spec.metrics.enabled`. None: not said.
    pub metrics_enabled: Option<bool>,
    /// `spec.metrics.latencyDistributionBuckets`: upper bounds, milliseconds, ascending. Empty: not said.
    pub latency_buckets_ms: Vec<f64>,
    /// `spec.metrics.rules`: what becomes of the values of labels.
    pub metrics_rules: Vec<MetricsRule>,
    /// `spec.metrics.recordErrorCodes`: whether the error codes of the API are counted.
    pub record_error_codes: bool,
    /// `spec.metrics.http`: how requests over HTTP are counted.
    pub http_metrics: HttpMetrics,
    /// `spec.features`, the one named `HotReload`. None: not said.
    pub hot_reload: Option<bool>,
    /// `spec.components.deny`: types (`pubsub.kafka`, `pubsub.kafka/v1`) that are not loaded.
    pub denied_components: Vec<String>,
}

/// How requests over HTTP are counted, those of the API and those to the app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpMetrics {
    /// `increasedCardinality`: by path. (As for Dapr not unless it is asked for.)
    pub increased_cardinality: bool,
    /// `pathMatching`: paths that are counted as one, the narrowest first.
    pub paths: Vec<PathPattern>,
    /// `excludeVerbs`: where paths are counted, methods are not.
    pub exclude_verbs: bool,
}

impl HttpMetrics {
    /// Whether they are counted by path or by pattern.
    #[must_use]
    pub fn has_paths(&self) -> bool {
        self.increased_cardinality || !self.paths.is_empty()
    }
}

/// Which calls of the API have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApiLogging {
    /// `enabled`. None: not said, and then there are none.
    pub enabled: Option<bool>,
    /// `obfuscateURLs`: what was called is named, without the path.
    pub obfuscate_urls: bool,
    /// `omitHealthChecks`.
    pub omit_health_checks: bool,
}

/// What of the API may be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiAccess {
    /// `allowed`; empty: everything.
    pub allowed: Vec<ApiRule>,
    /// `denied`, which wins.
    pub denied: Vec<ApiRule>,
}

/// Some part of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRule {
    /// `publish`, `metadata`, `shutdown`, and those of what this host has not.
    pub name: String,
    /// `v1` or `v1alpha1`. None: every version.
    pub version: Option<String>,
    /// None: over every protocol.
    pub protocol: Option<Protocol>,
}

/// How the API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Over HTTP.
    Http,
    /// Over gRPC.
    Grpc,
}

impl ApiAccess {
    /// Whether a part of the API may be called.
    #[must_use]
    pub fn allows(&self, protocol: Protocol, name: &str, version: &str) -> bool {
        let is = |rule: &ApiRule| {
            rule.name == name
                && rule.version.as_deref().is_none_or(|known| known == version)
                && rule.protocol.is_none_or(|known| known == protocol)
        };
        // A list for one protocol says nothing about the other.
        let mut listed =
            self.allowed.iter().filter(|rule| rule.protocol.is_none_or(|known| known == protocol)).peekable();
        !self.denied.iter().any(is) && (listed.peek().is_none() || listed.any(is))
    }
}

/// Reads the files, in which `$NAME` and `${NAME}` stand for variables of the environment. What a later one says replaces what
/// an earlier one said. Of traces, OpenTelemetry's variables say what no file does.
///
/// # Errors
/// Everything that is wrong, warnings included: a file that cannot be read or is no YAML, a value that does not parse.
pub fn configuration(
    files: &[PathBuf],
    surroundings: &Surroundings,
) -> Result<(Configuration, Vec<Problem>), Problems> {
    let (mut configuration, mut problems) = (Configuration::default(), Vec::new());
    for file in files.iter().take(FILES_MAX) {
        let text = match folder::regular(file).map(String::from_utf8) {
            Ok(Ok(text)) => expand(&text, surroundings),
            Ok(Err(_)) => {
                problems.push(wrong(file, "not UTF-8 text".to_owned(), ""));
                continue;
            }
            Err(why) => {
                problems.push(wrong(file, format!("the configuration: {why}"), "--config names a file"));
                continue;
            }
        };
        let (before, mut malformed) = (problems.len(), Vec::new());
        for document in folder::parse(file, text.as_bytes(), &mut malformed) {
            let root = Place::root(file, &document.root);
            let text = |key: &str| root.text(key, &mut Vec::new()).unwrap_or_default();
            match (text("apiVersion"), text("kind")) {
                ("dapr.io/v1alpha1", "Configuration") => {
                    raw::configuration::read(&root, &mut configuration, &mut problems);
                }
                _ => problems.push(root.warning("no Configuration (dapr.io/v1alpha1), ignored".to_owned(), "")),
            }
        }
        // Of a resource that is passed over there may be another; whoever names a file here means this one.
        let fatal = |problem: Problem| {
            let what = problem.what.replacen(", ignored", "", 1);
            Problem { severity: Severity::Error, what, ..problem }
        };
        problems.extend(malformed.into_iter().map(fatal));
        problems[before..].sort_by_key(|problem| problem.at.line);
    }
    if let Err(variables) = configuration.tracing.add_environment(surroundings) {
        let wrong =
            |(key, what): (String, &str)| Problem { key, ..wrong(Path::new("environment"), what.to_owned(), "") };
        problems.extend(variables.into_iter().map(wrong));
    }
    if let Some(file) = files.get(FILES_MAX) {
        problems.push(wrong(file, format!("more than {FILES_MAX} files of configuration"), "join them"));
    }
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Problems(problems));
    }
    Ok((configuration, problems))
}

fn wrong(file: &Path, what: String, hint: &str) -> Problem {
    let at = Position { file: file.to_path_buf(), line: 1 };
    Problem { severity: Severity::Error, at, key: String::new(), what, hint: hint.to_owned() }
}

/// A text with its variables. One that is not set is empty; a `$` that no name follows stays.
fn expand(text: &str, surroundings: &Surroundings) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        expanded.push_str(before);
        let (name, tail) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        if name.is_empty() {
            expanded.push('$');
            rest = after;
        } else {
            expanded.push_str(surroundings.variable(name).unwrap_or_default());
            rest = tail;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests;
