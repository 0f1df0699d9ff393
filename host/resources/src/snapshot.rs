//! The validated, immutable picture of everything declared. Made by `load`, read by everybody else.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::problem::{Position, Problem};
use crate::rule::Rule;
use crate::scopes::TopicScopes;
use crate::template;
use crate::trip::Trip;

/// Everything declared that concerns this process.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Pub/sub components, in order of file and document.
    pub components: Vec<Arc<Component>>,
    /// Declarative subscriptions, in order; the first of one (pubsub, topic) has won already.
    pub subscriptions: Vec<Arc<Subscription>>,
    /// Handler components.
    pub handlers: Vec<Arc<HandlerApp>>,
    /// Timeouts, retries and circuit breakers.
    pub policies: Policies,
    /// Names of the `Resiliency` resources, for the metadata API.
    pub resiliencies: Vec<String>,
    /// Files outside of the folders that values came from, or would have: those of the secret stores.
    pub files: Vec<PathBuf>,
    /// What is odd and did not keep the resources from being used.
    pub warnings: Vec<Problem>,
}

/// A value that may be a secret: `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for whoever must use it. Never for a log line.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// One item of a component's `spec.metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// As spelled. Compared without regard to case.
    pub name: String,
    /// What was given; a non-string as its JSON text.
    pub value: Text,
    /// Where it stands.
    pub at: Position,
}

/// A declared broker: Dapr's pub/sub `Component`.
#[derive(Debug, Clone)]
pub struct Component {
    /// `metadata.name`.
    pub name: String,
    /// `spec.type` in lower case, for example `pubsub.redis`.
    pub kind: String,
    /// `spec.version`; `v1` when absent.
    pub version: String,
    /// `spec.metadata`, in order, without the topic scoping items.
    pub properties: Vec<Property>,
    /// `scopes`: apps that may use it; empty: all.
    pub scopes: Vec<String>,
    /// Topic scoping from `spec.metadata`.
    pub topic_scopes: TopicScopes,
    /// `spec.initTimeout`: how long opening may take.
    pub init_timeout: Duration,
    /// `spec.ignoreErrors`: a failed start is not fatal; the host goes on trying.
    pub ignore_errors: bool,
    /// `spec.metadata.consumerID`, trimmed, if not blank: the consumer group in place of the app id. `{appID}` in it
    /// is each app's own: see [`Component::group`].
    pub consumer_id: Option<String>,
    /// What the broker's topics begin with and nobody else's do: the namespace, if a value of `spec.metadata` names it.
    pub topic_prefix: Option<String>,
    /// `metadata.annotations["whimbrel.dev/network"]`: host patterns (`*.kafka.local:9092`) granted besides the
    /// addresses that the metadata names.
    pub network: Vec<String>,
    /// `metadata.annotations["whimbrel.dev/plugin"]`: the component's file, relative to the resource's, in place of
    /// the search by type.
    pub plugin: Option<PathBuf>,
    /// Where the document stands.
    pub at: Position,
}

impl Component {
    /// Whether an app may use it.
    #[must_use]
    pub fn visible_to(&self, app_id: &str) -> bool {
        self.scopes.is_empty() || self.scopes.iter().any(|scope| scope == app_id)
    }

    /// The consumer group of an app.
    #[must_use]
    pub fn group(&self, app_id: &str) -> String {
        self.consumer_id.as_deref().map_or_else(|| app_id.to_owned(), |id| template::of_app(id, app_id))
    }

    /// The value of a property, by its name without regard to case.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        let found = self.properties.iter().rev().find(|property| property.name.eq_ignore_ascii_case(name));
        found.map(|property| property.value.reveal())
    }
}

/// How a subscription came to be (metadata API `type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A `Subscription` resource.
    Declarative,
    /// The app's answer to `GET /dapr/subscribe`.
    Programmatic,
    /// A `Handler` resource.
    Handler,
}

/// A declared subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The resource's name; empty for a programmatic one.
    pub name: String,
    /// The component.
    pub pubsub: String,
    /// The topic.
    pub topic: String,
    /// Content rules: the first that is true for an event takes it.
    pub rules: Vec<Rule>,
    /// Where an event goes that no rule takes: a path. `None`: nowhere. Empty for a handler component, which has no paths.
    pub default_route: Option<String>,
    /// Where given-up messages go.
    pub dead_letter_topic: Option<String>,
    /// For the adapter, and `rawPayload` for us.
    pub metadata: Vec<(String, String)>,
    /// `bulkSubscribe`, if it is enabled: events come several at a time.
    pub bulk: Option<Bulk>,
    /// Apps it is for; empty: all.
    pub scopes: Vec<String>,
    /// How it came to be.
    pub origin: Origin,
}

/// How many events come at a time, and how long they wait for one another: Dapr's `bulkSubscribe` (pubsub-behaviour,
/// section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk {
    /// `maxMessagesCount`: events of one batch at most. Default 100.
    pub max_messages: u32,
    /// `maxAwaitDurationMs`: how long the first event of a batch waits for others. Default one second.
    pub max_wait: Duration,
}

impl Bulk {
    /// The most events of one batch that may be asked for.
    const MESSAGES_MAX: i64 = 10_000;

    /// The longest wait that may be asked for, milliseconds. The messages that wait are unsettled meanwhile.
    const WAIT_MS_MAX: i64 = 10 * 60 * 1000;

    /// From what was given; nothing, 0 and less mean the default, as in Dapr. Also what was not taken as it was given.
    pub(crate) fn of(messages: Option<i64>, wait_ms: Option<i64>) -> (Self, Vec<String>) {
        let Self { max_messages, max_wait } = Self::default();
        let mut odd = Vec::new();
        let mut bounded = |name: &str, given: Option<i64>, max: i64| {
            let given = given.filter(|given| *given != 0)?;
            if given < 0 || given > max {
                let taken = if given < 0 { "the default" } else { "the most" };
                odd.push(format!("{name} is {given}, not between 0 and {max}: {taken} is taken"));
            }
            Some(given.min(max)).filter(|given| *given > 0)
        };
        let messages = bounded("maxMessagesCount", messages, Self::MESSAGES_MAX);
        let wait = bounded("maxAwaitDurationMs", wait_ms, Self::WAIT_MS_MAX);
        let bulk = Self {
            max_messages: messages.and_then(|messages| u32::try_from(messages).ok()).unwrap_or(max_messages),
            max_wait: wait.map_or(max_wait, |wait| Duration::from_millis(wait.unsigned_abs())),
        };
        (bulk, odd)
    }
}

impl Default for Bulk {
    fn default() -> Self {
        Self { max_messages: 100, max_wait: Duration::from_secs(1) }
    }
}

/// A declared handler component: our kind `Handler`, apiVersion `whimbrel.dev/v1alpha1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerApp {
    /// `metadata.name`.
    pub name: String,
    /// `spec.file`, made absolute or relative to the process by the resource's folder.
    pub file: PathBuf,
    /// `spec.appID`: the identity it subscribes and publishes under; the resource's name when absent.
    pub app_id: String,
    /// `spec.subscriptions`.
    pub subscriptions: Vec<Arc<Subscription>>,
    /// `spec.limits`.
    pub limits: HandlerLimits,
    /// Where the document stands.
    pub at: Position,
}

/// Instances of all handlers of a process together: their places are made at start.
pub const HANDLER_INSTANCES_MAX: u32 = 1000;

/// Linear memory of one handler instance, bytes: the address space of each place is set aside at start.
pub const HANDLER_MEMORY_BYTES_MAX: u64 = 512 << 20;

/// What a handler may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerLimits {
    /// `memory`: linear memory of one instance, bytes. Default 64 MiB.
    pub memory_bytes: u64,
    /// `deadline`: how long one event may take, waiting for its own publishes included. Default 30 s.
    pub deadline: Duration,
    /// `instances`: events handled at the same time. Default 4.
    pub instances: u32,
    /// `eventsPerInstance`: an instance is replaced after so many; 1: a fresh one for each event. Default 100,000.
    pub events_per_instance: u64,
}

impl Default for HandlerLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 * 1024 * 1024,
            deadline: Duration::from_secs(30),
            instances: 4,
            events_per_instance: 100_000,
        }
    }
}

/// Timeouts, retries and circuit breakers, resolved by component name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// The `Resiliency` resource that was read last, which Dapr counts all of them under; empty: there is none.
    pub resource: String,
    /// Around delivery to the app.
    pub inbound: HashMap<String, Policy>,
    /// Around publishing.
    pub outbound: HashMap<String, Policy>,
    /// For components that no target names.
    pub inbound_default: Policy,
    /// For components that no target names.
    pub outbound_default: Policy,
    /// Around asking the app for its subscriptions: the retry policy `DaprBuiltInInitializationRetries`, else three retries
    /// (pubsub-behaviour 5.2, 10.2).
    pub discovery: Policy,
}

/// Retries of asking the app for its subscriptions, at least: a policy with fewer counts as one with these.
pub(crate) const DISCOVERY_RETRIES_MIN: u32 = 3;

/// The longest wait between them where no policy says.
const DISCOVERY_WAIT_MAX: Duration = Duration::from_secs(1);

impl Default for Policies {
    fn default() -> Self {
        let discovery = Retry {
            backoff: Backoff::Exponential(DISCOVERY_WAIT_MAX),
            max_retries: Some(DISCOVERY_RETRIES_MIN),
            matching: Matching::default(),
        };
        Self {
            resource: String::new(),
            inbound: HashMap::new(),
            outbound: HashMap::new(),
            inbound_default: Policy::default(),
            outbound_default: Policy::default(),
            discovery: Policy { retry: Some(discovery), ..Policy::default() },
        }
    }
}

/// What surrounds one operation: retry( circuit breaker( timeout( operation ) ) ).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// For one attempt.
    pub timeout: Option<Duration>,
    /// None: one attempt.
    pub retry: Option<Retry>,
    /// None: whatever fails, the next is tried.
    pub breaker: Option<Arc<CircuitBreaker>>,
}

/// When attempts are refused without being made, and when they are let through again. A publish that is refused fails; a
/// delivery is given back to the broker and comes again, whether or not there is a dead-letter topic: unlike Dapr's, which
/// dead-letters messages that no app has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// `maxRequests`: attempts let through to find out whether all is well again; so many successes close it. At least 1.
    pub max_requests: u32,
    /// `interval`: how often the counts are cleared while it is closed; `None`: never.
    pub interval: Option<Duration>,
    /// `timeout`: how long it stays open before attempts are let through to find out.
    pub timeout: Duration,
    /// `trip`: when it opens.
    pub trip: Trip,
}

/// Which failures are worth a retry, by their code. What has no code always is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// `httpStatusCodes`; `None`: all.
    pub http: Option<Codes>,
    /// `gRPCStatusCodes`; `None`: all.
    pub grpc: Option<Codes>,
}

/// Status codes, as ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes(pub Vec<RangeInclusive<u16>>);

impl Codes {
    /// Whether one of the ranges has it.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }
}

/// How to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How long to wait.
    pub backoff: Backoff,
    /// Attempts after the first; `None`: no limit.
    pub max_retries: Option<u32>,
    /// `matching`: what is retried.
    pub matching: Matching,
}

/// The waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Always the same.
    Constant(Duration),
    /// From 500 ms, times 1.5, give or take a half, up to this; it gives up after 15 minutes in all.
    Exponential(Duration),
}

impl Policies {
    /// What surrounds delivery from a component.
    #[must_use]
    pub fn inbound(&self, component: &str) -> &Policy {
        self.inbound.get(component).unwrap_or(&self.inbound_default)
    }

    /// What surrounds publishing to a component.
    #[must_use]
    pub fn outbound(&self, component: &str) -> &Policy {
        self.outbound.get(component).unwrap_or(&self.outbound_default)
    }
}
