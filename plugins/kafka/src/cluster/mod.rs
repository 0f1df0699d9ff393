//! The cluster: who leads what, and a connection for each use of each broker.
//!
//! Called by everything that asks a broker. Nobody else opens connections, and nobody else keeps addresses.
//!
//! `dial` makes a connection (`scram` proves who we are), `link` serves it, `slots` keeps one for each use, `map` is
//! what is known about the cluster; `frame` and `versions` are the protocol's envelope, `shape` what may be in it.

mod dial;
mod frame;
mod grants;
mod link;
mod map;
mod scram;
mod shape;
mod slots;
mod versions;

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::future::select;
use futures::lock::Mutex;
use futures::pin_mut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{Failure, timer};

use self::dial::Address;
pub(crate) use self::link::Link;
use self::map::Map;
use self::slots::Slots;
use crate::config::Settings;
use crate::failure::{check_name, error, is_final, missing, of_group, of_topic, text};
use crate::health::Health;

/// The pause before the same thing is looked up again.
const LOOKUP_PAUSE: Duration = Duration::from_millis(100);

/// For so long may a topic be missing that the broker is about to create.
const CREATION_WAIT: Duration = Duration::from_secs(3);

/// So many topics are waited for at once.
const CREATIONS_MAX: usize = 8;

/// How long the first try to reach each broker may take: the reason should be known before whoever waits gives up.
const FIRST_DIAL_WAIT: Duration = Duration::from_secs(2);

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
    /// Of one membership: a join waits for the whole group, and no other group's heartbeats may wait with it.
    Group(u32),
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
    health: Rc<Health>,
    slots: Slots,
    map: RefCell<Map>,
    /// Held by who asks about a topic: those who ask meanwhile find their answer in what comes.
    asking: RefCell<HashMap<String, Rc<Mutex<()>>>>,
    /// Held by those who wait for a topic to be created: a broker creates few at a time.
    creating: [Mutex<()>; CREATIONS_MAX],
    closing: Cell<bool>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster that nobody was asked about yet.
    pub(crate) fn new(settings: Rc<Settings>, health: Rc<Health>) -> Rc<Self> {
        let slots = Slots::new(Rc::clone(&settings), Rc::clone(&health));
        let map = RefCell::default();
        Rc::new(Self {
            settings,
            health,
            slots,
            map,
            asking: RefCell::default(),
            creating: Default::default(),
            closing: Cell::new(false),
        })
    }

    /// What the resource says.
    pub(crate) fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// How it stands.
    pub(crate) fn health(&self) -> &Rc<Health> {
        &self.health
    }

    /// Reaches the cluster for the first time: a configured broker, and one of those that it advertises. Tries for ever,
    /// unless all brokers fail for a reason that somebody must mend.
    ///
    /// # Errors
    /// That reason.
    pub(crate) async fn first_contact(&self) -> Result<(), Failure> {
        self.health.is_down("");
        let mut backoff = Backoff::default();
        let mut patience = FIRST_DIAL_WAIT;
        loop {
            let seeds = self.settings.brokers.clone();
            let contact = async {
                self.one_of(&seeds, patience).await?;
                let asked = self.ask_metadata(None, patience.max(self.settings.read_wait)).await;
                let answer = asked.map_err(|error| self.turned_away(error))?;
                self.map.borrow_mut().learn_brokers(&answer);
                let advertised: Vec<Address> = self.map.borrow().brokers.values().cloned().collect();
                self.one_of(&advertised, patience).await
            };
            match contact.await {
                Ok(()) => {
                    self.health.begin();
                    return Ok(());
                }
                Err(failure) if is_final(&failure) => return Err(failure),
                Err(failure) => self.health.is_down(text(&failure)),
            }
            patience = self.settings.dial_wait;
            timer::sleep(backoff.next_wait()).await;
        }
    }

    /// The first real question was not answered: what a broker does that wants credentials and has got none.
    fn turned_away(&self, error: CallError) -> Failure {
        match error.harmless() {
            Failure::Transient(why) if self.settings.sasl.is_none() => {
                Failure::Transient(format!("{why}; does this listener want a password (metadata authType)?"))
            }
            other => other,
        }
    }

    /// Connects to one of these. A reason that somebody must mend goes before others.
    async fn one_of(&self, addresses: &[Address], patience: Duration) -> Result<(), Failure> {
        let mut why = Failure::Transient("no broker is known".to_owned());
        for address in addresses {
            match self.slots.link(address, Lane::Main, patience).await {
                Ok(_) => return Ok(()),
                Err(failure) if is_final(&why) && !is_final(&failure) => {}
                Err(failure) => why = failure,
            }
        }
        Err(why)
    }

    /// Keeps one connection alive for as long as the component lives, and its news true: whoever publishes next should
    /// not be the one to find out that the broker is gone.
    pub(crate) async fn keep(self: Rc<Self>) {
        while !self.closing.get() {
            {
                let lost = self.slots.lost.wait();
                let due = timer::sleep(self.settings.metadata_refresh);
                pin_mut!(lost);
                pin_mut!(due);
                select(lost, due).await;
            }
            if self.closing.get() {
                return;
            }
            if self.slots.any_open().is_none() {
                self.health.is_down("the connection was lost");
            }
            match self.ask_metadata(None, self.settings.read_wait).await {
                Ok(answer) => self.map.borrow_mut().learn_brokers(&answer),
                // Each try that failed has been told.
                Err(_) => {
                    timer::sleep(LOOKUP_PAUSE).await;
                    self.slots.lost.raise();
                }
            }
        }
    }

    /// Ends all connections. Whatever waits for an answer gets none.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.slots.close();
        self.slots.lost.raise();
    }

    /// Asks, and returns the answer. Connects, looks up who it is, and tries again what was not written, all for as
    /// long as `patience`. The version is the newest that both sides know.
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
    pub(crate) async fn call_with<R: Request, B: Borrow<R>>(
        &self,
        to: &To,
        lane: Lane,
        patience: Duration,
        request: impl Fn(i16) -> B,
    ) -> Result<(R::Response, i16), CallError> {
        let deadline = timer::now() + patience;
        loop {
            let link = self.reach(to, lane, deadline).await?;
            let version = link.version::<R>()?;
            let asked = link.ask(request(version).borrow(), version, patience.max(self.settings.answer_wait()));
            let left = deadline.saturating_duration_since(timer::now());
            match timer::timeout(left, asked).await {
                Some(Ok(answer)) => return Ok((answer, version)),
                Some(Err(CallError::Unsent(why))) if timer::now() >= deadline => return Err(CallError::Unsent(why)),
                Some(Err(CallError::Unsent(_))) => timer::sleep(LOOKUP_PAUSE.min(left)).await,
                Some(Err(other)) => return Err(other),
                None => return Err(CallError::Unanswered(format!("within {patience:?}"))),
            }
        }
    }

    /// A connection to whom it concerns. Tries until the deadline.
    ///
    /// # Errors
    /// `Unsent` with the last reason, or `Failure` if that is one that somebody must mend.
    pub(crate) async fn reach(&self, to: &To, lane: Lane, deadline: Instant) -> Result<Rc<Link>, CallError> {
        if let Some(link) = self.reached(to, lane) {
            return Ok(link);
        }
        let mut last = None;
        let trying = async {
            loop {
                if self.closing.get() {
                    return Err(Failure::Transient("the connection is closing".to_owned()));
                }
                match self.reach_once(to, lane, deadline).await {
                    Ok(link) => return Ok(link),
                    // What is known of the topic will not change by asking again.
                    Err(Miss::Refused(failure)) if is_final(&failure) => return Err(failure),
                    Err(Miss::Refused(failure) | Miss::Unreached(failure)) => last = Some(failure),
                }
                self.forget(to);
                timer::sleep(LOOKUP_PAUSE).await;
            }
        };
        let left = deadline.saturating_duration_since(timer::now());
        match timer::timeout(left, trying).await {
            Some(Ok(link)) => Ok(link),
            Some(Err(failure)) if is_final(&failure) => Err(CallError::Failure(failure)),
            Some(Err(failure)) => Err(CallError::Unsent(text(&failure).to_owned())),
            None => Err(match last {
                Some(failure) if is_final(&failure) => CallError::Failure(failure),
                Some(failure) => CallError::Unsent(text(&failure).to_owned()),
                None => CallError::Unsent("no broker was reached in time".to_owned()),
            }),
        }
    }

    /// The connection to whom it concerns, if all is known and connected.
    fn reached(&self, to: &To, lane: Lane) -> Option<Rc<Link>> {
        let id = match to {
            To::Any => return self.slots.any_open().filter(|_| lane == Lane::Main),
            To::Broker(id) => *id,
            To::Coordinator(group) => *self.map.borrow().coordinators.get(group)?,
            To::Leader { topic, partition } => {
                let map = self.map.borrow();
                let topic = map.topic(topic, timer::now(), self.settings.metadata_refresh)?;
                topic.partitions.iter().find(|info| info.id == *partition)?.leader?
            }
        };
        self.slots.open(self.map.borrow().brokers.get(&id)?, lane)
    }

    async fn reach_once(&self, to: &To, lane: Lane, deadline: Instant) -> Result<Rc<Link>, Miss> {
        let left = || deadline.saturating_duration_since(timer::now());
        let address = match to {
            To::Any => match self.slots.any_open().filter(|_| lane == Lane::Main) {
                Some(link) => return Ok(link),
                None => self.soonest(),
            },
            To::Broker(id) => self.address(*id, left()).await?,
            To::Leader { topic, partition } => {
                let partitions = self.partitions(topic, left()).await.map_err(Miss::Refused)?;
                let leader = partitions.iter().find(|info| info.id == *partition).and_then(|info| info.leader);
                let leader = leader.ok_or_else(|| {
                    Miss::Refused(Failure::Transient(format!("nobody leads partition {partition} of {topic:?} now")))
                })?;
                self.address(leader, left()).await?
            }
            To::Coordinator(group) => {
                let id = self.coordinator(group, left()).await.map_err(Miss::Refused)?;
                self.address(id, left()).await?
            }
        };
        self.slots.link(&address, lane, self.settings.dial_wait).await.map_err(Miss::Unreached)
    }

    /// The broker that may be tried the soonest: those the cluster told of, and those the resource names.
    fn soonest(&self) -> Address {
        let mut addresses: Vec<Address> = self.map.borrow().brokers.values().cloned().collect();
        addresses.extend(self.settings.brokers.iter().cloned());
        let soonest = addresses.into_iter().min_by_key(|address| self.slots.not_before(address));
        soonest.unwrap_or_default()
    }

    async fn address(&self, id: i32, patience: Duration) -> Result<Address, Miss> {
        let known = self.map.borrow().brokers.get(&id).cloned();
        if let Some(address) = known {
            return Ok(address);
        }
        let answer =
            Box::pin(self.ask_metadata(None, patience)).await.map_err(|error| Miss::Unreached(error.harmless()))?;
        self.map.borrow_mut().learn_brokers(&answer);
        let known = self.map.borrow().brokers.get(&id).cloned();
        known.ok_or_else(|| Miss::Unreached(Failure::Transient(format!("broker {id} is not in the cluster now"))))
    }

    async fn coordinator(&self, group: &str, patience: Duration) -> Result<i32, Failure> {
        let known = self.map.borrow().coordinators.get(group).copied();
        if let Some(id) = known {
            return Ok(id);
        }
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        let answer = Box::pin(self.call(&To::Any, Lane::Main, request, patience)).await.map_err(CallError::harmless)?;
        if let Some(error) = error(answer.error_code) {
            return Err(of_group(error, group));
        }
        let id = answer.node_id.0;
        let port = u16::try_from(answer.port).unwrap_or_default();
        let mut map = self.map.borrow_mut();
        map.brokers.entry(id).or_insert_with(|| (answer.host.to_string(), port));
        map.coordinators.insert(group.to_owned(), id);
        Ok(id)
    }

    /// The partitions of a topic, asked for anew if what is known is old or was forgotten. Not an empty list.
    ///
    /// # Errors
    /// There is no such topic (`Invalid`, naming it), no permission, or nobody answers.
    pub(crate) async fn partitions(&self, topic: &str, patience: Duration) -> Result<Vec<PartitionInfo>, Failure> {
        self.topic(topic, patience).await?.ok_or_else(|| missing(topic))
    }

    /// Like [`partitions`](Self::partitions); `None`: there is no such topic, and asking has not created it.
    ///
    /// # Errors
    /// Kafka forbids the name, no permission, or nobody answers.
    pub(crate) async fn topic(&self, topic: &str, patience: Duration) -> Result<Option<Vec<PartitionInfo>>, Failure> {
        if let Some(known) = self.known(topic) {
            return Ok(Some(known));
        }
        check_name(topic)?;
        let begun = timer::now();
        let mut creation = None;
        loop {
            let error = match self.look_up(topic, begun, patience).await? {
                Ok(partitions) => return Ok(Some(partitions)),
                Err(error) => error,
            };
            let since = |start| timer::now().saturating_duration_since(start);
            match error {
                ResponseError::UnknownTopicOrPartition => match creation {
                    Some((start, _)) if since(start) >= CREATION_WAIT.min(patience) => return Ok(None),
                    Some(_) => {}
                    None => {
                        let turn = self.creating[fastrand::usize(..CREATIONS_MAX)].lock().await;
                        creation = Some((timer::now(), turn));
                    }
                },
                error if error.is_retriable() && since(begun) < patience => {}
                ResponseError::TopicAuthorizationFailed => return Err(self.why_denied(topic, patience).await),
                error => return Err(of_topic(error, topic)),
            }
            timer::sleep(LOOKUP_PAUSE).await;
        }
    }

    /// The partitions of a topic, if they are known well enough.
    pub(crate) fn known(&self, topic: &str) -> Option<Vec<PartitionInfo>> {
        let map = self.map.borrow();
        map.topic(topic, timer::now(), self.settings.metadata_refresh).map(|topic| topic.partitions.clone())
    }

    /// Asks about a topic, unless somebody else has meanwhile.
    async fn look_up(
        &self,
        topic: &str,
        begun: Instant,
        patience: Duration,
    ) -> Result<Result<Vec<PartitionInfo>, ResponseError>, Failure> {
        let asking = Rc::clone(self.asking.borrow_mut().entry(topic.to_owned()).or_default());
        let found = {
            let _turn = asking.lock().await;
            self.look_up_alone(topic, begun, patience).await
        };
        drop(asking);
        self.asking.borrow_mut().retain(|_, asking| Rc::strong_count(asking) > 1);
        found
    }

    async fn look_up_alone(
        &self,
        topic: &str,
        begun: Instant,
        patience: Duration,
    ) -> Result<Result<Vec<PartitionInfo>, ResponseError>, Failure> {
        let heard = self.map.borrow().heard(topic);
        if heard.is_some_and(|heard| heard > begun)
            && let Some(known) = self.known(topic)
        {
            return Ok(Ok(known));
        }
        let answer = Box::pin(self.ask_metadata(Some(topic), patience)).await.map_err(CallError::harmless)?;
        let mut map = self.map.borrow_mut();
        map.learn_brokers(&answer);
        let told = answer.topics.iter().find(|told| told.name.as_ref().is_some_and(|name| name.as_str() == topic));
        let told = told.ok_or_else(|| Failure::Transient("the broker says nothing about the topic".to_owned()))?;
        Ok(map.learn_topic(topic, told, timer::now()))
    }

    async fn ask_metadata(&self, topic: Option<&str>, patience: Duration) -> Result<MetadataResponse, CallError> {
        let name = |topic: &str| TopicName(StrBytes::from_string(topic.to_owned()));
        let topics = topic.map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
        let request = MetadataRequest::default()
            .with_topics(Some(topics.into_iter().collect()))
            .with_allow_auto_topic_creation(true);
        self.call(&To::Any, Lane::Main, request, patience).await
    }

    /// A membership has ended: its connections are not needed any more.
    pub(crate) fn hang_up(&self, lane: Lane) {
        self.slots.end(lane);
    }

    /// What is known about whom to ask is wrong: look it up again.
    pub(crate) fn forget(&self, to: &To) {
        let mut map = self.map.borrow_mut();
        match to {
            To::Any => {}
            To::Broker(id) => {
                map.brokers.remove(id);
            }
            To::Leader { topic, .. } => map.doubt(topic),
            To::Coordinator(group) => {
                map.coordinators.remove(group);
            }
        }
    }
}

/// Why one try to reach a broker came to nothing.
enum Miss {
    /// It is not known who it is, and the reason may be final.
    Refused(Failure),
    /// It is known, and cannot be connected to. Brokers move, and so this never is final.
    Unreached(Failure),
}
