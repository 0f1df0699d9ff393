//! What a check gets: instances of the adapter, topics and groups that nobody else has, and the profile's commands.

mod inbox;
mod instance;
mod proxies;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use whimbrel_pubsub::Features;
use whimbrel_resources::Component;
use whimbrel_wasm::Adapter;

use crate::check::{Check, Finding, Wrong};
use crate::control::{Control, Stored};
use crate::profile::Profile;
pub(crate) use inbox::{ARRIVE_WAIT, Inbox, number};
pub(crate) use instance::{Instance, Payload};
pub(crate) use proxies::Proxies;

/// What all checks of one run share.
pub(crate) struct Bench {
    pub(crate) profile: Profile,
    pub(crate) adapter: Adapter,
    /// As the first instance told them; or why there was none.
    opened: Result<Features, String>,
    /// Part of every name, so that two runs never meet.
    run: String,
    /// What the faults are drawn with.
    pub(crate) seed: u64,
    /// Stand before a broker that tells its clients to come to these addresses.
    proxies: Option<Arc<Proxies>>,
}

impl Bench {
    /// Opens a first instance, for what it declares.
    pub(crate) async fn set_up(profile: Profile, adapter: Adapter, seed: u64) -> Self {
        let run = format!("{:08x}", fastrand::u32(..));
        let (proxies, opened) = match standing_proxies(&profile).await {
            Err(wrong) => (None, Err(wrong.to_string())),
            Ok(proxies) => {
                let component = profile.at(&addresses(proxies.as_deref()));
                let probe = Instance::start(&profile, &adapter, &component, &format!("conform-{run}-probe")).await;
                (proxies, probe.map(|instance| instance.features()).map_err(|wrong| wrong.to_string()))
            }
        };
        Self { profile, adapter, opened, run, seed, proxies }
    }

    /// What the adapter declares; nothing, if it does not open.
    pub(crate) fn features(&self) -> Features {
        self.opened.clone().unwrap_or_default()
    }

    /// Why a check is not run.
    pub(crate) fn excuse(&self, check: &Check) -> Option<Finding> {
        if let Some(reason) = self.profile.exception(check.id) {
            return Some(Finding::NotSupported(reason.to_owned()));
        }
        let features = match &self.opened {
            Err(why) if check.id == "D1" => return Some(Finding::Failed(why.clone())),
            Err(why) => return Some(Finding::Untested("D1", why.clone())),
            Ok(features) => features,
        };
        let missing = check.needs.iter().find_map(|need| need.missing(&self.profile, features));
        missing.map(|why| Finding::NotSupported(why.to_owned()))
    }
}

/// The proxies that a broker's clients are told to come to, if the profile says where that is.
async fn standing_proxies(profile: &Profile) -> Result<Option<Arc<Proxies>>, Wrong> {
    let listen = &profile.conformance.proxy_listen;
    if listen.is_empty() {
        return Ok(None);
    }
    let wrong = |error| Wrong::new(format!("proxyListen {listen:?}: {error}"));
    let proxies = Proxies::start_at(listen, profile.broker_addresses().await?).await.map_err(wrong)?;
    Ok(Some(Arc::new(proxies)))
}

fn addresses(proxies: Option<&Proxies>) -> Vec<SocketAddr> {
    proxies.map(Proxies::addresses).unwrap_or_default()
}

/// What a check gets.
pub(crate) struct Rig {
    bench: Arc<Bench>,
    check: &'static str,
    topics: AtomicU32,
}

impl Rig {
    pub(crate) fn new(bench: Arc<Bench>, check: &'static str) -> Self {
        Self { bench, check, topics: AtomicU32::new(0) }
    }

    /// What is judged, and by what.
    pub(crate) fn profile(&self) -> &Profile {
        &self.bench.profile
    }

    /// What the adapter declares.
    pub(crate) fn features(&self) -> Features {
        self.bench.features()
    }

    /// How long the broker leaves a message with a consumer that vanished.
    pub(crate) fn lease(&self) -> Duration {
        self.profile().conformance.lease
    }

    /// The component as its users write it.
    pub(crate) fn component(&self) -> Component {
        self.profile().at(&addresses(self.bench.proxies.as_deref()))
    }

    /// A fresh instance of it, opened and ready, as a host process of that name would have it.
    pub(crate) async fn instance(&self, name: &str) -> Result<Instance, Wrong> {
        self.instance_of(name, &self.component()).await.map_err(|wrong| wrong.or_of("D1"))
    }

    /// Proxies before the broker, that nobody uses but this check.
    pub(crate) async fn proxies(&self) -> Result<Arc<Proxies>, Wrong> {
        match &self.bench.proxies {
            Some(proxies) => Ok(Arc::clone(proxies)),
            None => {
                let proxies = Proxies::start(self.profile().broker_addresses().await?).await;
                Ok(Arc::new(proxies.map_err(|error| Wrong::new(format!("no proxy can be started: {error}")))?))
            }
        }
    }

    /// What the faults are drawn with.
    pub(crate) fn seed(&self) -> u64 {
        self.bench.seed
    }

    /// Which check this is.
    pub(crate) fn check(&self) -> &'static str {
        self.check
    }

    /// The same, which reaches the broker through these.
    pub(crate) async fn instance_behind(&self, name: &str, proxies: &Proxies) -> Result<Instance, Wrong> {
        self.instance_of(name, &self.profile().at(&proxies.addresses())).await
    }

    /// The same of another component.
    pub(crate) async fn instance_of(&self, name: &str, component: &Component) -> Result<Instance, Wrong> {
        Instance::start(self.profile(), &self.bench.adapter, component, &self.name(name)).await
    }

    /// The same, whether it opens or not: `Instance::state` tells.
    pub(crate) fn instance_begun(&self, name: &str, component: &Component) -> Result<Instance, Wrong> {
        Instance::begin(self.profile(), &self.bench.adapter, component, &self.name(name))
    }

    /// The name of a topic that nobody else has, ready to be used.
    pub(crate) async fn topic(&self, label: &str) -> Result<String, Wrong> {
        let topic = self.unprepared(label);
        self.control().prepare(&topic).await?;
        Ok(topic)
    }

    /// The same, of which the broker has never heard.
    pub(crate) fn unprepared(&self, label: &str) -> String {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        self.name(&format!("{label}{number}"))
    }

    /// The name of a group that nobody else has.
    pub(crate) fn group(&self, label: &str) -> String {
        self.name(label)
    }

    /// What the broker has stored in a topic, as a client of its own reads it, oldest first.
    pub(crate) async fn stored(&self, topic: &str) -> Result<Vec<Stored>, Wrong> {
        Ok(self.control().read(topic).await?)
    }

    /// The profile's commands.
    pub(crate) fn control(&self) -> Control<'_> {
        Control(&self.profile().conformance)
    }

    fn name(&self, label: &str) -> String {
        format!("conform-{}-{}-{label}", self.bench.run, self.check.to_ascii_lowercase())
    }
}
