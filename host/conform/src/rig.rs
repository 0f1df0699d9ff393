//! What a check gets: instances of the adapter, topics and groups that nobody else has, and the profile's commands.

mod inbox;
mod instance;

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
pub(crate) use inbox::Inbox;
pub(crate) use instance::{Instance, Payload};

/// What all checks of one run share.
pub(crate) struct Bench {
    pub(crate) profile: Profile,
    pub(crate) adapter: Adapter,
    /// As the first instance told them; or why there was none.
    opened: Result<Features, String>,
    /// Part of every name, so that two runs never meet.
    run: String,
}

impl Bench {
    /// Opens a first instance, for what it declares.
    pub(crate) async fn set_up(profile: Profile, adapter: Adapter) -> Self {
        let run = format!("{:08x}", fastrand::u32(..));
        let probe = Instance::start(&profile, &adapter, &profile.component, &format!("conform-{run}-probe")).await;
        let opened = probe.map(|instance| instance.features()).map_err(|wrong| wrong.to_string());
        Self { profile, adapter, opened, run }
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

    /// A fresh instance of the component, opened and ready, as a host process of that name would have it.
    pub(crate) async fn instance(&self, name: &str) -> Result<Instance, Wrong> {
        let component = &self.profile().component;
        self.instance_of(name, component).await.map_err(|wrong| wrong.or_of("D1"))
    }

    /// The same with the broker's address replaced.
    pub(crate) async fn instance_at(&self, name: &str, address: SocketAddr) -> Result<Instance, Wrong> {
        self.instance_of(name, &self.profile().at(Some(address))).await
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
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        let topic = self.name(&format!("{label}{number}"));
        self.control().prepare(&topic).await?;
        Ok(topic)
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
