//! How many deliveries of one subscription run at once, and which of them wait for one another. Called by `deliver`.
//!
//! Three entries of the subscription's metadata say so, all of them ours: `maxUnsettled`, `maxConcurrency` and
//! `orderPerKey`.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use whimbrel_resources::Subscription;

use crate::broker::Arrived;

/// Deliveries of one subscription that may be unsettled, if its metadata says nothing.
const UNSETTLED_DEFAULT: u32 = 100;

/// The most that may be asked for.
const UNSETTLED_MAX: u32 = 10_000;

/// What a subscription asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concurrency {
    /// Deliveries that may be unsettled, at the adapter and here (`maxUnsettled`).
    pub(crate) unsettled: u32,
    /// Deliveries that may run at once (`maxConcurrency`); never more than may be unsettled.
    pub(crate) running: u32,
    /// Whether messages of one key run one after the other, each until it is done with (`orderPerKey`).
    pub(crate) per_key: bool,
}

impl Concurrency {
    /// Reads it. What does not parse is as if it were not there, and the log says so.
    pub(crate) fn of(declared: &Subscription) -> Self {
        let given = |wanted: &str| {
            let found = declared.metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim())
        };
        let number = |name: &str| {
            let parsed = given(name).map(|value| value.parse::<u32>().map_err(|_| unreadable(declared, name, value)));
            parsed.and_then(Result::ok)
        };
        let unsettled = number("maxUnsettled").unwrap_or_else(|| {
            // While one batch is with the app, the next one fills.
            declared.bulk.map_or(0, |bulk| bulk.max_messages.saturating_mul(2)).max(UNSETTLED_DEFAULT)
        });
        let unsettled = unsettled.clamp(1, UNSETTLED_MAX);
        let running = number("maxConcurrency").map_or(unsettled, |number| number.clamp(1, unsettled));
        let per_key = given("orderPerKey").is_some_and(|value| match value.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => {
                unreadable(declared, "orderPerKey", value);
                false
            }
        });
        Self { unsettled, running, per_key }
    }
}

fn unreadable(declared: &Subscription, name: &str, value: &str) {
    let Subscription { pubsub, topic, .. } = declared;
    tracing::warn!(
        pubsub,
        topic,
        "the subscription's metadata {name} is {value:?}: a whole number or, for orderPerKey, true"
    );
}

/// The keys that have a message in work, over all feeds of a subscription: what a lost feed left running is still its
/// key's turn.
#[derive(Debug, Default, Clone)]
pub(crate) struct Keys(Arc<Mutex<HashSet<String>>>);

/// A message's turn among those of its key; the next one's begins when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    keys: Keys,
    key: String,
}

impl Keys {
    fn with<T>(&self, act: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key's turn, if nobody has it.
    fn take(&self, key: &str) -> Option<Turn> {
        self.with(|taken| taken.insert(key.to_owned())).then(|| Turn { keys: self.clone(), key: key.to_owned() })
    }

    fn free(&self, key: &str) -> bool {
        self.with(|taken| !taken.contains(key))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.keys.with(|taken| taken.remove(&self.key));
    }
}

/// The deliveries that run, over all feeds of a subscription.
#[derive(Debug, Default, Clone)]
pub(crate) struct Places(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    count: AtomicUsize,
    freed: Notify,
}

/// A delivery's place among those that may run at once, and its turn if it has a key. Dropped when it is done with.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    turn: Option<Turn>,
}

impl Places {
    /// Returns when a place was freed since this was last asked.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    fn taken(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    fn take(&self, turn: Option<Turn>) -> Place {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        Place { places: self.clone(), turn }
    }
}

impl Place {
    /// Whether others of its key wait for it.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before whoever waits looks.
        self.turn = None;
        self.places.0.count.fetch_sub(1, Ordering::Relaxed);
        self.places.0.freed.notify_one();
    }
}

/// What has arrived and waits for its turn. An adapter that keeps to `max-unsettled` makes nothing wait but for a key or
/// for `maxConcurrency`; one that does not is held up at its stream once so many wait here.
#[derive(Debug)]
pub(crate) struct Admission {
    concurrency: Concurrency,
    keys: Keys,
    places: Places,
    waiting: VecDeque<Arrived>,
}

impl Admission {
    /// Nothing waits yet.
    pub(crate) fn new(concurrency: Concurrency, keys: Keys, places: Places) -> Self {
        Self { concurrency, keys, places, waiting: VecDeque::new() }
    }

    /// Whether more may be taken from the feed. Where keys wait for one another, others must come past them.
    pub(crate) fn has_room(&self) -> bool {
        let most = if self.concurrency.per_key { self.concurrency.unsettled as usize } else { 1 };
        self.waiting.len() < most
    }

    /// Lines up what came.
    pub(crate) fn line_up(&mut self, batch: Vec<Arrived>) {
        if self.waiting.is_empty() {
            self.waiting = batch.into();
        } else {
            self.waiting.extend(batch);
        }
    }

    /// The next one whose key is free, if those that run leave room for it, with the place it takes. What has no key waits
    /// for nobody.
    pub(crate) fn admit(&mut self) -> Option<(Arrived, Place)> {
        if self.places.taken() >= self.concurrency.running as usize {
            return None;
        }
        if !self.concurrency.per_key {
            return self.waiting.pop_front().map(|arrived| (arrived, self.places.take(None)));
        }
        let free = |arrived: &Arrived| arrived.message.key.as_deref().is_none_or(|key| self.keys.free(key));
        let next = self.waiting.iter().position(free)?;
        let arrived = self.waiting.remove(next)?;
        let turn = arrived.message.key.as_deref().and_then(|key| self.keys.take(key));
        Some((arrived, self.places.take(turn)))
    }

    /// The feed is left, and the next one brings again what does not end in time. Where keys keep their order nothing is
    /// begun any more: it might overtake what comes again.
    pub(crate) fn leave(&mut self) {
        if self.concurrency.per_key {
            self.concurrency.running = 0;
        }
    }

    /// All that still waits.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = Arrived> + '_ {
        self.waiting.drain(..)
    }
}

#[cfg(test)]
mod tests;
