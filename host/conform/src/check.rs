//! What a check is, what it needs, and what it can find. Named by every check; run by the spine.

use std::fmt;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use whimbrel_pubsub::{BrokerError, Features, SettleError};

use crate::control::ControlError;
use crate::profile::Profile;
use crate::rig::Rig;
use crate::wait::Late;

/// One promise, and how it is tested.
pub(crate) struct Check {
    /// As in the documentation: `B9`.
    pub(crate) id: &'static str,
    /// The promise in a few words.
    pub(crate) title: &'static str,
    /// What has to happen, in one sentence.
    pub(crate) expects: &'static str,
    /// What usually causes a failure.
    pub(crate) cause: &'static str,
    /// Where to read: a file and its section.
    pub(crate) read: &'static str,
    /// Without all of these it is not supported.
    pub(crate) needs: &'static [Need],
    /// How long it may take besides leases; none: as all others.
    pub(crate) bound: Option<Duration>,
    /// Tests it.
    pub(crate) run: fn(&Rig) -> LocalBoxFuture<'_, Tested>,
}

/// What a check answers: an `Err` is a failure, met on the way.
pub(crate) type Tested = Result<Finding, Wrong>;

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The promise is kept.
    Passed,
    /// It is not: what happened.
    Failed(String),
    /// The broker, or what the profile gives, cannot: why.
    NotSupported(String),
    /// Another promise was broken, so this one could not be tested: the other check, and what happened. If that check has
    /// not failed, this one has.
    Untested(&'static str, String),
}

/// What went wrong, and whose promise it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    what: String,
    /// The check that is about it; none: the one that met it.
    about: Option<&'static str>,
}

impl Wrong {
    /// The promise that is being tested is broken.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), about: None }
    }

    /// Another promise is broken: that check is about it.
    pub(crate) fn of(check: &'static str, what: impl Into<String>) -> Self {
        Self { what: what.into(), about: Some(check) }
    }

    /// The same, unless somebody is blamed already.
    pub(crate) fn or_of(mut self, check: &'static str) -> Self {
        self.about = self.about.or(Some(check));
        self
    }

    /// The same, and what else is known.
    pub(crate) fn and(mut self, more: &impl fmt::Display) -> Self {
        self.what = format!("{}; {more}", self.what);
        self
    }

    /// What was blamed on one check is blamed on another.
    pub(crate) fn passed_on(mut self, from: &str, to: &'static str) -> Self {
        if self.about == Some(from) {
            self.about = Some(to);
        }
        self
    }

    /// The same as this check's own failure, whoever was blamed.
    pub(crate) fn own(mut self) -> Self {
        self.about = None;
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<Wrong> for Finding {
    fn from(wrong: Wrong) -> Self {
        match wrong.about {
            None => Self::Failed(wrong.what),
            Some(check) => Self::Untested(check, wrong.what),
        }
    }
}

impl From<Late> for Wrong {
    fn from(late: Late) -> Self {
        Self::new(late.to_string())
    }
}

impl From<ControlError> for Wrong {
    fn from(error: ControlError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<BrokerError> for Wrong {
    fn from(error: BrokerError) -> Self {
        Self::new(format!("the adapter answered: {error}"))
    }
}

impl From<SettleError> for Wrong {
    fn from(error: SettleError) -> Self {
        Self::new(format!("a settlement failed: {error}"))
    }
}

/// What a check needs of the adapter, its broker, or the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A broker that several instances of the adapter can meet at: `address`.
    Shared,
    /// A broker that proxies can stand before: `address`.
    Proxy,
    /// `groups`.
    Groups,
    /// `ordering`.
    Ordering,
    /// `delivery-count`.
    Count,
    /// `ttl`.
    Ttl,
    /// `durable`.
    Durable,
    /// Publishing goes on while messages are in hand: no `topic-flow`.
    Queue,
    /// New groups can begin with what was published before them: `history`.
    History,
    /// A client of its own that reads what the broker has: `read`.
    Reader,
    /// A known limit of a message's size.
    Limit,
    /// Commands that stop and start the broker.
    Stop,
    /// Commands that kill and start it.
    Kill,
    /// Commands that take topics or groups away.
    Delete,
    /// Commands that fill and relieve it.
    Fill,
    /// A command that changes the secret it takes.
    Rotate,
    /// A listener of its own that speaks TLS.
    Tls,
}

impl Need {
    /// Why it is not there.
    pub(crate) fn missing(self, profile: &Profile, features: &Features) -> Option<&'static str> {
        let spec = &profile.conformance;
        let (there, why) = match self {
            Self::Shared => (spec.address.is_some(), "the broker lives in the component: no two instances meet"),
            Self::Proxy => (spec.address.is_some(), "the broker lives in the component: no proxy can stand before it"),
            Self::Groups => (features.groups, "the adapter does not declare `groups`"),
            Self::Ordering => (features.ordering, "the adapter does not declare `ordering`"),
            Self::Count => (features.delivery_count, "the adapter does not declare `delivery-count`"),
            Self::Ttl => (features.ttl, "the adapter does not declare `ttl`"),
            Self::Durable => (features.durable, "the adapter does not declare `durable`"),
            Self::Queue => (!features.topic_flow, "publishing waits for the subscribers (`topic-flow`)"),
            Self::History => (spec.history, "the profile says `history: false`"),
            Self::Reader => (!spec.read.is_empty(), "the profile names no `read` command"),
            Self::Limit => (profile.message_bytes_max(features).is_some(), "no limit of a message's size is known"),
            Self::Stop => (!spec.stop.is_empty(), "the profile names no `stop` and `start` commands"),
            Self::Kill => (!spec.kill.is_empty(), "the profile names no `kill` and `start` commands"),
            Self::Delete => (
                !spec.delete_topic.is_empty() || !spec.delete_group.is_empty(),
                "the profile names no `deleteTopic` or `deleteGroup` command",
            ),
            Self::Fill => (!spec.fill.is_empty(), "the profile names no `fill` and `relieve` commands"),
            Self::Rotate => (!spec.rotate.is_empty(), "the profile names no `rotate` command"),
            Self::Tls => (spec.tls.is_some(), "the profile names no `tls` settings"),
        };
        (!there).then_some(why)
    }
}
