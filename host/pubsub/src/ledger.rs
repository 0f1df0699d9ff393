//! How many attempts the messages that come back have had, and which course of a message is the latest. Called by
//! `deliver`, one ledger for each subscription.
//!
//! Attempts are numbered across this host's retries and the broker's redeliveries. Where the ledger knows nothing
//! (another process had the message), the broker's count is the base. What is settled at the first attempt of its
//! first delivery never gets an entry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use whimbrel_resources::Subscription;

/// Messages in one of the two generations. When the young one is full the old one is forgotten: a message that never
/// comes back (another process got it) takes no room for ever.
const MESSAGES_MAX: usize = 10_000;

/// Whether the attempts of earlier deliveries count against the policy's number of them, by the subscription's metadata
/// (`countRedeliveries`, ours). What does not parse is as if it were not there, and the log says so.
pub(crate) fn counts_redeliveries(declared: &Subscription) -> bool {
    const NAME: &str = "countRedeliveries";
    let given = declared.metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(NAME));
    let Some((_, value)) = given else { return false };
    let counts = value.trim().eq_ignore_ascii_case("true");
    if !counts && !value.trim().eq_ignore_ascii_case("false") {
        let Subscription { pubsub, topic, .. } = declared;
        tracing::warn!(pubsub, topic, "the subscription's metadata {NAME} is {value:?}: true or false");
    }
    counts
}

/// Entries by the broker's message id.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Entry>,
    old: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The number of the last attempt.
    attempts: u32,
    /// The latest course that is known.
    course: u64,
    /// Courses that have not ended, as far as is known.
    open: u32,
    /// The message is done with, and the entry only tells the courses that are still open.
    done: bool,
}

impl Ledger {
    /// A course of a message begins: the number of its first attempt. `count` is the broker's, this delivery included;
    /// `course` grows with each delivery on this subscription.
    pub(crate) fn begin(&self, id: &str, count: Option<u32>, course: u64) -> u32 {
        self.with(|generations| {
            let (attempts, open) = match (generations.take(id), count) {
                (Some(entry), _) => (entry.attempts.saturating_add(1), entry.open.saturating_add(1)),
                (None, None | Some(0 | 1)) => return 1,
                // The delivery before may still be under way here: its first attempt left no entry.
                (None, Some(count)) => (count, 2),
            };
            generations.put(id, Entry { attempts, course, open, done: false });
            attempts
        })
    }

    /// The number of the attempt that follows `attempt` within a course. `None`: a later course of the same message has
    /// begun, for the broker delivered it again meanwhile, and this one can no longer be settled.
    pub(crate) fn next(&self, id: &str, course: u64, attempt: u32) -> Option<u32> {
        self.with(|generations| {
            let fresh = Entry { attempts: attempt, course, open: 1, done: false };
            let mut entry = generations.take(id).unwrap_or(fresh);
            let latest = entry.course <= course;
            if latest {
                entry.attempts = entry.attempts.max(attempt).saturating_add(1);
                entry.course = course;
            }
            generations.put(id, entry);
            latest.then_some(entry.attempts)
        })
    }

    /// A course ended, and its message comes back.
    pub(crate) fn note(&self, id: &str, course: u64, attempt: u32) {
        self.with(|generations| {
            let mut entry = generations.take(id).unwrap_or(Entry { attempts: 0, course, open: 1, done: false });
            entry.attempts = entry.attempts.max(attempt);
            entry.course = entry.course.max(course);
            generations.end(id, entry);
        });
    }

    /// A message stays with the broker as it came: its next delivery is no further attempt.
    pub(crate) fn hold(&self, id: &str, count: Option<u32>) {
        self.with(|generations| {
            let before = count.unwrap_or(1).saturating_sub(1);
            let fresh = Entry { attempts: before, course: 0, open: 0, done: false };
            let entry = generations.take(id).unwrap_or(fresh);
            generations.put(id, entry);
        });
    }

    /// Takes an attempt back that is not charged, unless a later one was made.
    pub(crate) fn take_back(&self, id: &str, attempt: u32) {
        self.with(|generations| {
            if let Some(entry) = generations.take(id) {
                let attempts = if entry.attempts == attempt { attempt.saturating_sub(1) } else { entry.attempts };
                generations.put(id, Entry { attempts, ..entry });
            }
        });
    }

    /// A course ended, and its message is done with.
    pub(crate) fn done(&self, id: &str) {
        self.with(|generations| {
            if let Some(entry) = generations.take(id) {
                generations.end(id, Entry { done: true, ..entry });
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Generations) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    /// Most of the time both are empty, and nothing is hashed.
    fn take(&mut self, id: &str) -> Option<Entry> {
        let young = if self.young.is_empty() { None } else { self.young.remove(id) };
        if young.is_some() || self.old.is_empty() { young } else { self.old.remove(id) }
    }

    /// Puts an entry back after a course has ended, if it is still of use.
    fn end(&mut self, id: &str, mut entry: Entry) {
        entry.open = entry.open.saturating_sub(1);
        if !entry.done || entry.open > 0 {
            self.put(id, entry);
        }
    }

    fn put(&mut self, id: &str, entry: Entry) {
        if self.young.len() >= MESSAGES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests;
