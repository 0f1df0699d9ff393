//! The cluster: who leads what, and a connection for each use of each broker.
//!
//! Called by everything that asks a broker. Nobody else opens connections, and nobody else keeps addresses.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::protocol::Request;
use whimbrel_sdk::{Failure, StatusSink};

use crate::config::Settings;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum To {
    /// Any broker that answers.
    Any,
    /// The broker with this id.
    Broker(i32),
    /// Who leads a partition.
    Leader { topic: String, partition: i32 },
    /// Who coordinates a group.
    Coordinator(String),
}

/// Which of the connections to a broker: a long poll or a join must not hold up anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    Main,
    Fetch,
    Group,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// Nothing was written.
    Unsent(String),
    /// It was written, or partly: whether it took effect is not known.
    Unanswered(String),
    /// It cannot be: nothing was written, and the same call will not succeed unless somebody acts.
    Failure(Failure),
}

/// One partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionInfo {
    pub(crate) id: i32,
    /// The broker that leads it; none for now: `None`.
    pub(crate) leader: Option<i32>,
}

/// See the module.
pub(crate) struct Cluster {
    settings: Rc<Settings>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster that nobody was asked about yet.
    pub(crate) fn new(settings: Rc<Settings>, _status: StatusSink) -> Rc<Self> {
        Rc::new(Self { settings })
    }

    /// What the resource says.
    pub(crate) fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// Asks, and returns the answer. Connects, looks up who it is, and tries again what was not written, all for as
    /// long as `patience`. The version is the newest that both sides know, as far as `versions` allows.
    ///
    /// # Errors
    /// There is no answer. Error codes in an answer are the caller's to read; after those that mean "not me any more",
    /// it calls [`forget`](Self::forget).
    pub(crate) async fn call<R: Request>(
        &self,
        to: &To,
        lane: Lane,
        request: R,
        patience: Duration,
    ) -> Result<R::Response, CallError> {
        self.call_with::<R, _>(to, lane, patience, |_| &request).await.map(|(answer, _)| answer)
    }

    /// Like [`call`](Self::call), for a request that depends on the version it is sent in. Returns that, too.
    pub(crate) async fn call_with<R: Request, B: std::borrow::Borrow<R>>(
        &self,
        _to: &To,
        _lane: Lane,
        _patience: Duration,
        _request: impl Fn(i16) -> B,
    ) -> Result<(R::Response, i16), CallError> {
        Err(CallError::Unsent("soon".to_owned()))
    }

    /// The partitions of a topic, asked for anew if what is known is old or was forgotten. Not an empty list.
    ///
    /// # Errors
    /// There is no such topic (`Invalid`, naming it), no permission, or nobody answers.
    pub(crate) async fn partitions(&self, _topic: &str, _patience: Duration) -> Result<Vec<PartitionInfo>, Failure> {
        Err(Failure::Transient("soon".to_owned()))
    }

    /// What is known about whom to ask is wrong: look it up again.
    pub(crate) fn forget(&self, _to: &To) {}
}
