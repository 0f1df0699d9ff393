//! A real component in the real worker.

use std::sync::Arc;
use std::time::Duration;

use whimbrel::pubsub::{Broker, Metrics};
use whimbrel::resources::{Component, Position, Text, TopicScopes};
use whimbrel::wasm::{BrokerSettings, BrokerState, Engines, Grants, Loader, Plugin, start_broker};

/// Starts a bundled adapter and waits until it serves. The loader must live as long as the broker.
pub async fn open(kind: &str, properties: &[(String, String)], batch: usize) -> (Loader, Broker) {
    let bundled = whimbrel_artifacts::BUNDLED.iter().find(|bundled| bundled.kind == kind).unwrap();
    let plugin = Plugin::bundled(bundled.kind.as_ref(), bundled.bytes.to_vec()).unwrap();
    let cache = std::env::temp_dir().join("whimbrel-bench-cache");
    let loader = Loader::new(Engines::new().unwrap(), Some(cache));
    let (broker, queue) = Broker::new(Arc::new(component()));
    let mut grants = Grants::default();
    // What a broker advertises is granted too.
    grants.allow_pattern("127.0.0.1:*");
    let settings = BrokerSettings {
        name: "bus".to_owned(),
        properties: properties.iter().map(|(name, value)| (name.clone(), Text::new(value.clone()))).collect(),
        instance: "bench".to_owned(),
        grants,
        open_wait: Duration::from_secs(10),
        metrics: Metrics::default(),
        batch_messages_max: Some(u32::try_from(batch).unwrap()),
        trap_every: None,
    };
    let mut state = start_broker(&loader, &plugin, &broker, queue, settings).unwrap();
    state.wait_for(|state| *state == BrokerState::Ready).await.unwrap();
    (loader, broker)
}

pub fn component() -> Component {
    Component {
        name: "bus".to_owned(),
        kind: "pubsub.bench".to_owned(),
        version: "v1".to_owned(),
        properties: Vec::new(),
        scopes: Vec::new(),
        topic_scopes: TopicScopes::default(),
        init_timeout: Duration::from_secs(5),
        ignore_errors: false,
        consumer_id: None,
        topic_prefix: None,
        network: Vec::new(),
        plugin: None,
        at: Position { file: "bench".into(), line: 1 },
    }
}
