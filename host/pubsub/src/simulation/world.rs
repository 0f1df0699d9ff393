//! What everybody in one run shares: the dice, the trace, the broker's queues, and the ledger that the checks stand on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::course::Seen;
use crate::{Arrived, Message, Verdict};

/// The metadata entry that numbers what is published.
pub(super) const NUMBER: &str = "n";

/// The metadata entry in which the fake broker tells its own id for a message, and the delivery's token.
pub(super) const MESSAGE: &str = "message";

/// See [`MESSAGE`].
pub(super) const TOKEN: &str = "token";

/// A handle to the world.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World::new(seed))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a little, or not at all.
    pub(super) async fn dawdle(&self, max: Duration) {
        let wait = {
            let mut world = self.lock();
            if world.rng.u8(..4) == 0 { Duration::ZERO } else { world.up_to(max) }
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// One subscription: app and topic.
pub(super) type Key = (String, String);

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Expires within a second.
    Expiring,
    /// No event, on a subscription that is not raw.
    Poison,
}

pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) count: u32,
    /// The token it is in flight under.
    pub(super) token: Option<u64>,
    pub(super) ready_at: Instant,
}

/// One group's view of one topic.
pub(super) struct Queue {
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) changed: Arc<Notify>,
    /// Where its dead letters go.
    pub(super) dead_letter_topic: Option<String>,
    /// How many attempts one delivery may have; `None`: no limit.
    pub(super) attempts_max: Option<u32>,
    /// Counts the runs of the host's task.
    pub(super) incarnation: u32,
    /// Since when it is being stopped.
    pub(super) stopped_at: Option<Instant>,
}

/// One delivery, by its token.
pub(super) struct Handed {
    pub(super) key: Key,
    pub(super) message: u64,
    pub(super) incarnation: u32,
    pub(super) attempts: u32,
    pub(super) settled: bool,
}

pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) start: Instant,
    /// No more faults.
    pub(super) calm: bool,
    /// A dead-letter topic that its app may not publish to.
    pub(super) forbidden: Option<String>,
    /// A task of the host is being killed: what it has in flight is dropped, as it would be by the kernel.
    pub(super) killing: bool,
    pub(super) counts_known: bool,
    pub(super) violations: Vec<String>,
    pub(super) seen: Seen,
    trace: DefaultHasher,
    lines: Option<Vec<String>>,

    pub(super) queues: BTreeMap<Key, Queue>,
    /// Ends with the adapter's instance.
    pub(super) instance: CancellationToken,
    /// The adapter lost its broker, and lives.
    pub(super) reconnect: Arc<Notify>,
    /// Each live feed's own end.
    pub(super) feeds: BTreeMap<Key, CancellationToken>,
    next: u64,
    pub(super) handed: BTreeMap<u64, Handed>,

    pub(super) published: BTreeMap<u32, Kind>,
    stored: BTreeSet<u32>,
    pub(super) confirmed: BTreeSet<u32>,
    pub(super) succeeded: BTreeSet<(Key, u32)>,
    pub(super) refused: BTreeSet<(Key, u32)>,
    dead: BTreeSet<(String, u32)>,
    /// Attempts that no message is charged with.
    pub(super) unfinished: BTreeMap<(Key, u64), u32>,
    /// Deliveries of which at least one attempt was made.
    pub(super) begun: BTreeMap<(Key, u64), u32>,
    pub(super) last_attempt: BTreeMap<(Key, u32, u64), (u32, bool)>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            start: Instant::now(),
            calm: false,
            forbidden: None,
            killing: false,
            counts_known: !seed.is_multiple_of(4),
            violations: Vec::new(),
            seen: Seen::default(),
            trace: DefaultHasher::new(),
            lines: std::env::var_os("WHIMBREL_SEED").map(|_| Vec::new()),
            queues: BTreeMap::new(),
            instance: CancellationToken::new(),
            reconnect: Arc::new(Notify::new()),
            feeds: BTreeMap::new(),
            next: 0,
            handed: BTreeMap::new(),
            published: BTreeMap::new(),
            stored: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            refused: BTreeSet::new(),
            dead: BTreeSet::new(),
            unfinished: BTreeMap::new(),
            begun: BTreeMap::new(),
            last_attempt: BTreeMap::new(),
        }
    }

    pub(super) fn up_to(&mut self, max: Duration) -> Duration {
        Duration::from_millis(self.rng.u64(0..=u64::try_from(max.as_millis()).expect("short")))
    }

    /// One throw of the dice: something goes wrong with this probability, while things may go wrong.
    pub(super) fn fault(&mut self, percent: u8) -> bool {
        let thrown = self.rng.u8(..100) < percent;
        thrown && !self.calm
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn trace(&mut self, line: &str) {
        let at = self.start.elapsed().as_millis();
        (at, line).hash(&mut self.trace);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:9.3} {line}", Duration::from_millis(at as u64).as_secs_f64()));
        }
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) fn violation(&mut self, what: &str) {
        let at = self.start.elapsed();
        self.trace(&format!("VIOLATION {what}"));
        self.violations.push(format!("at {at:?}: {what}"));
    }

    /// The trace as text, when one seed runs alone.
    pub(super) fn lines(&self) -> String {
        self.lines.as_ref().map(|lines| lines.join("\n")).unwrap_or_default()
    }

    /// A message becomes durable.
    pub(super) fn store(&mut self, message: &Message) {
        let number = number_of(message);
        if let Some(app) = message.topic.strip_prefix("dead-") {
            self.seen.dead_lettered += 1;
            self.dead.insert((app.to_owned(), number));
        } else {
            self.stored.insert(number);
        }
        self.trace(&format!("stored {number} in {}", message.topic));
        let keys: Vec<Key> = self.queues.keys().filter(|(_, topic)| **topic == *message.topic).cloned().collect();
        for key in keys {
            let id = self.number();
            let queue = self.queues.get_mut(&key).expect("just found");
            let entry = Entry { message: message.clone(), count: 0, token: None, ready_at: Instant::now() };
            queue.entries.insert(id, entry);
            queue.changed.notify_one();
        }
    }

    /// What a feed hands out now.
    pub(super) fn take(&mut self, key: &Key, incarnation: u32, room: usize) -> Vec<Arrived> {
        let now = Instant::now();
        let queue = &self.queues[key];
        let ready = queue.entries.iter().filter(|(_, entry)| entry.token.is_none() && entry.ready_at <= now);
        let ids: Vec<u64> = ready.map(|(id, _)| *id).take(room).collect();
        let mut batch = Vec::new();
        for message in ids {
            let token = self.number();
            let counts_known = self.counts_known;
            let entry = self.queues.get_mut(key).and_then(|queue| queue.entries.get_mut(&message)).expect("just found");
            entry.count += 1;
            entry.token = Some(token);
            let (count, mut copy) = (entry.count, entry.message.clone());
            copy.metadata.push((MESSAGE.into(), message.to_string()));
            copy.metadata.push((TOKEN.into(), token.to_string()));
            let handed = Handed { key: key.clone(), message, incarnation, attempts: 0, settled: false };
            self.handed.insert(token, handed);
            self.seen.deliveries += 1;
            self.trace(&format!("delivered {key:?} message {message} token {token} count {count}"));
            batch.push(Arrived { token, id: message.to_string(), message: copy, count: counts_known.then_some(count) });
        }
        batch
    }

    /// When a feed has something to hand out.
    pub(super) fn next_ready(&self, key: &Key) -> Option<Instant> {
        self.queues[key].entries.values().filter(|entry| entry.token.is_none()).map(|entry| entry.ready_at).min()
    }

    /// A feed is gone: what it had in flight will be delivered again.
    pub(super) fn release(&mut self, key: &Key, tokens: &BTreeSet<u64>) {
        let delay = self.up_to(Duration::from_secs(2));
        let queue = self.queues.get_mut(key).expect("declared");
        for entry in queue.entries.values_mut().filter(|entry| entry.token.is_some_and(|token| tokens.contains(&token)))
        {
            entry.token = None;
            entry.ready_at = Instant::now() + delay;
        }
        queue.changed.notify_one();
    }

    /// Whether a token can still be settled. Settling one twice is the host's fault whatever the broker says.
    pub(super) fn receive(&mut self, token: u64, verdict: Verdict) {
        self.trace(&format!("settle token {token} {verdict:?}"));
        let Some(handed) = self.handed.get_mut(&token) else {
            return self.violation(&format!("token {token} was never handed out"));
        };
        let (again, key) = (std::mem::replace(&mut handed.settled, true), handed.key.clone());
        if again {
            self.violation(&format!("token {token} is settled twice"));
        }
        let stopped = self.queues[&key].stopped_at;
        if matches!(verdict, Verdict::Retry(_)) && stopped.is_some_and(|stopped| stopped < Instant::now()) {
            self.violation(&format!("token {token} of {key:?} is given back while stopping"));
        }
    }

    /// Carries out a verdict. `false`: the token means nothing any more.
    pub(super) fn apply(&mut self, token: u64, verdict: Verdict) -> bool {
        let (key, id) = match self.handed.get(&token) {
            Some(handed) => (handed.key.clone(), handed.message),
            None => return false,
        };
        let queue = self.queues.get_mut(&key).expect("declared");
        let Some(entry) = queue.entries.get_mut(&id).filter(|entry| entry.token == Some(token)) else {
            self.seen.stale += 1;
            return false;
        };
        match verdict {
            Verdict::Retry(wait) => {
                entry.token = None;
                entry.ready_at = Instant::now() + wait;
                queue.changed.notify_one();
                self.seen.given_back += 1;
            }
            Verdict::Ack => {
                let entry = queue.entries.remove(&id).expect("just found");
                queue.changed.notify_one();
                self.check_ack(&key, &entry.message);
            }
        }
        true
    }

    /// The broker forgets a message: somebody must have it, or nobody may want it.
    fn check_ack(&mut self, key: &Key, message: &Message) {
        let number = number_of(message);
        self.trace(&format!("acked {key:?} {number}"));
        let marked = (key.clone(), number);
        let dead = self.dead.contains(&(key.0.clone(), number));
        let refused = self.queues[key].dead_letter_topic.is_none() && self.refused.contains(&marked);
        if self.succeeded.contains(&marked) || dead || refused || self.expired(number) {
            return;
        }
        self.violation(&format!("{number} was acknowledged by {key:?}, and nobody has it"));
    }

    fn expired(&self, number: u32) -> bool {
        // A time to live of one second, cut to whole seconds, may be over at once.
        self.published.get(&number) == Some(&Kind::Expiring)
    }

    /// What is still to be done for what was published with success. Poison without a dead-letter topic stays for ever.
    pub(super) fn left(&self) -> Vec<String> {
        let queues = self
            .queues
            .iter()
            .flat_map(|(key, queue)| queue.entries.values().map(move |entry| (key, queue, number_of(&entry.message))));
        let stuck = |queue: &Queue, number: &u32| {
            let dead_letters =
                queue.dead_letter_topic.as_ref().is_some_and(|topic| self.forbidden.as_ref() != Some(topic));
            !dead_letters && self.published.get(number) == Some(&Kind::Poison)
        };
        queues
            .filter(|(_, queue, number)| !stuck(queue, number))
            .map(|(key, _, number)| format!("{key:?} {number}"))
            .collect()
    }

    /// What was answered with success must have been stored.
    pub(super) fn check_confirmed(&mut self) {
        let lies: Vec<u32> = self.confirmed.difference(&self.stored).copied().collect();
        if !lies.is_empty() {
            self.violation(&format!("published with success, and never stored: {lies:?}"));
        }
    }
}

/// The number of what was published.
pub(super) fn number_of(message: &Message) -> u32 {
    entry(&message.metadata, NUMBER)
}

/// A number in the metadata.
pub(super) fn entry<T: std::str::FromStr>(metadata: &[(String, String)], name: &str) -> T {
    let found = metadata.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {metadata:?}"))
}
