//! What the operator declared: YAML text in; one immutable, validated [`Snapshot`] out, or every problem found.
//!
//! Read once at start, and again at each reload. Absent on purpose: tokio, the network, Wasm. The only crate that
//! names a YAML or a CEL parser.

mod address;
mod configuration;
mod conformance;
mod diff;
mod duration;
mod folder;
pub mod fuzz;
mod load;
mod manifest;
mod metrics_rule;
mod path_pattern;
mod place;
mod problem;
mod programmatic;
mod raw;
mod rule;
mod schema;
mod scopes;
mod secrets;
mod snapshot;
mod surroundings;
mod template;
mod traces;
mod trip;
mod yaml;

pub use configuration::{ApiAccess, ApiLogging, ApiRule, Configuration, HttpMetrics, Protocol, configuration};
pub use conformance::{Command, Conformance, Exception, Refused, TlsVariants, conformance};
pub use diff::{
    Changes, ComponentChange, Diff, SubscriptionChange, component_change, diff, order, same_pool, subscription_change,
};
pub use duration::{duration, duration_or_millis, go_duration, go_text};
pub use folder::resource_files;
pub use load::{load, scoped_apps, survey};
pub use manifest::{DefaultPort, Field, FieldType, PluginManifest, check};
pub use metrics_rule::{MetricsRule, Replacement};
pub use path_pattern::PathPattern;
pub use problem::{Position, Problem, Problems, Severity};
pub use programmatic::programmatic;
pub use rule::{Fact, Facts, Rule};
pub use schema::{SCHEMAS, Schema};
pub use scopes::TopicScopes;
pub use snapshot::{
    Backoff, Bulk, CircuitBreaker, Codes, Component, HANDLER_INSTANCES_MAX, HANDLER_MEMORY_BYTES_MAX, HandlerApp,
    HandlerLimits, Matching, Origin, Policies, Policy, Property, Retry, Snapshot, Subscription, Text,
};
pub use surroundings::Surroundings;
pub use traces::{Otel, Tracing};
pub use trip::{Counts, Trip};

/// `WHIMBREL_TEST_SCALE`: what the tests multiply their counts by.
#[cfg(test)]
fn test_scale() -> usize {
    std::env::var("WHIMBREL_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}
