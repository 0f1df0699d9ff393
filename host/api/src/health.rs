//! What is ready and what is not. Set by the binary, read by the health routes and the metadata API.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks every broker for its state: name and state, for example `("bus", "restarting (3 of 10): trapped")`. A state of
/// `ready` is the good one.
pub type BrokerStates = Box<dyn Fn() -> Vec<(String, String)> + Send + Sync>;

/// The state of the host as the outside sees it.
pub struct Health {
    outbound: AtomicBool,
    ready: AtomicBool,
    brokers: BrokerStates,
}

impl Health {
    /// Nothing is ready yet.
    #[must_use]
    pub fn new(brokers: BrokerStates) -> Self {
        Self { outbound: AtomicBool::new(false), ready: AtomicBool::new(false), brokers }
    }

    /// Publishing works: brokers are open (or may be ignored) and the API listens.
    pub fn set_outbound(&self, ready: bool) {
        self.outbound.store(ready, Ordering::Release);
    }

    /// All of it works: the app was reached and its subscriptions are live.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Whether publishing works.
    #[must_use]
    pub fn is_outbound_ready(&self) -> bool {
        self.outbound.load(Ordering::Acquire)
    }

    /// Whether everything works. A broker that restarts later does not change it: an orchestrator that kills the host for
    /// a broker's sake would only make things worse. The metadata API shows it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Every broker with its state.
    #[must_use]
    pub fn brokers(&self) -> Vec<(String, String)> {
        (self.brokers)()
    }

    /// What keeps the host from being ready, for people.
    pub(crate) fn missing(&self) -> Vec<String> {
        let brokers = self.brokers().into_iter().filter(|(_, state)| state != "ready");
        let mut missing: Vec<String> = brokers.map(|(name, state)| format!("broker {name}: {state}")).collect();
        if !self.is_outbound_ready() {
            missing.push("outbound".into());
        }
        if !self.is_ready() {
            missing.push("app subscriptions".into());
        }
        missing
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("outbound", &self.outbound).field("ready", &self.ready).finish_non_exhaustive()
    }
}
