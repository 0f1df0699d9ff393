//! What plugins take up, and how far behind their brokers say that groups are. Called by the component host.

use std::fmt;
use std::time::Duration;

use prometheus::{Counter, IntGauge};

use super::Metrics;
use super::families::Families;

/// What a plugin is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginKind {
    /// An adapter.
    Broker,
    /// A subscriber.
    Handler,
}

impl PluginKind {
    fn word(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Handler => "handler",
        }
    }
}

/// What the instances of one plugin take up, together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Usage(Option<(Counter, IntGauge)>);

impl Usage {
    pub(super) fn new(families: Option<&Families>, kind: PluginKind, name: &str) -> Self {
        let labels = [name, kind.word()];
        Self(families.map(|families| (families.plugins.cpu.with(&labels), families.plugins.memory.with(&labels))))
    }

    /// An instance has kept its thread busy for so long.
    pub fn ran(&self, time: Duration) {
        if let Some((cpu, _)) = &self.0 {
            cpu.inc_by(time.as_secs_f64());
        }
    }

    /// An instance has so many bytes of linear memory more.
    pub fn grew(&self, bytes: usize) {
        if let Some((_, memory)) = &self.0 {
            memory.add(signed(bytes));
        }
    }

    /// An instance that had so many bytes is gone.
    pub fn gave_back(&self, bytes: usize) {
        if let Some((_, memory)) = &self.0 {
            memory.sub(signed(bytes));
        }
    }

    /// Bytes of linear memory of all instances that live.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, memory)| usize::try_from(memory.get()).unwrap_or(0))
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// How far groups are behind at one component's broker.
#[derive(Clone)]
pub struct Lags {
    metrics: Metrics,
    component: String,
    topic_prefix: String,
}

impl Lags {
    pub(super) fn new(metrics: Metrics, component: &str, topic_prefix: Option<&str>) -> Self {
        Self { metrics, component: component.to_owned(), topic_prefix: topic_prefix.unwrap_or_default().to_owned() }
    }

    /// So many messages of a topic wait for a group. The topic as the broker has it.
    pub fn tell(&self, topic: &str, group: &str, messages: u64) {
        if let Some(families) = &self.metrics.0.families {
            let messages = i64::try_from(messages).unwrap_or(i64::MAX);
            families.plugins.lag.with(&[&self.component, group, self.plain(topic)]).set(messages);
        }
    }

    /// Nobody here subscribes to that any more, so nobody tells.
    pub fn forget(&self, topic: &str, group: &str) {
        if let Some(families) = &self.metrics.0.families {
            families.plugins.lag.remove(&[&self.component, group, self.plain(topic)]);
        }
    }

    fn plain<'a>(&self, topic: &'a str) -> &'a str {
        topic.strip_prefix(&self.topic_prefix).unwrap_or(topic)
    }
}

impl fmt::Debug for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lags").field(&self.component).finish()
    }
}
