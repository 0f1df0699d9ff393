//! What runs: brokers by name, and each subscription with its handler. Immutable; a reload swaps the whole.

use std::collections::HashMap;
use std::sync::Arc;

use whimbrel_resources::{Policies, Subscription as Declared};

use crate::broker::Broker;
use crate::environment::Environment;
use crate::handler::Handler;
use crate::request::Caller;
use crate::scope;

/// Everything a message needs on its way, taken once per message.
#[derive(Debug)]
pub struct Topology {
    /// Clock and randomness.
    pub environment: Environment,
    /// The running brokers, by resource name.
    pub brokers: HashMap<String, Broker>,
    /// Timeouts and retries, by component.
    pub policies: Policies,
}

impl Topology {
    /// The broker of that name, if this app may see it (component scopes).
    #[must_use]
    pub fn broker(&self, name: &str, caller: &Caller) -> Option<&Broker> {
        self.brokers.get(name).filter(|broker| broker.declared.visible_to(&caller.app_id))
    }
}

/// One subscription of one app, with whatever receives its events.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// What was declared: broker, topic, route, dead-letter topic, metadata.
    pub declared: Arc<Declared>,
    /// The app it belongs to.
    pub caller: Caller,
    /// The consumer group.
    pub group: String,
    /// Who receives its events.
    pub handler: Handler,
}

impl Subscription {
    /// The broker it is served by.
    ///
    /// # Errors
    /// It is not meant to be: why.
    pub fn broker<'a>(&self, topology: &'a Topology) -> Result<&'a Broker, String> {
        let Self { declared, caller, .. } = self;
        let broker = topology.broker(&declared.pubsub, caller);
        let broker = broker.ok_or_else(|| format!("pubsub {} is not found", declared.pubsub))?;
        if !scope::allow_subscribe(&broker.declared.topic_scopes, &caller.app_id, &declared.topic) {
            return Err("the scopes do not let this app subscribe to this topic".to_owned());
        }
        Ok(broker)
    }
}
