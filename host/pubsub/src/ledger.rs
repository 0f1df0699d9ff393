//! How many attempts the messages that come back have had. Called by `deliver`, one ledger for each subscription.
//!
//! Attempts are numbered across this host's retries and the broker's redeliveries. What is settled at the first attempt
//! never gets an entry; what another process had before is known by the broker's count alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Messages in one of the two generations. When the young one is full the old one is forgotten: a message that never
/// comes back (another process got it) takes no room for ever.
const MESSAGES_MAX: usize = 10_000;

/// Attempts by the broker's message id.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, u32>,
    old: HashMap<String, u32>,
}

impl Ledger {
    /// The attempts that a delivery's message has had, as far as anybody knows. `count` is the broker's, this delivery
    /// included.
    pub(crate) fn attempts(&self, id: &str, count: Option<u32>) -> u32 {
        let by_broker = count.unwrap_or(1).saturating_sub(1);
        self.with(|generations| generations.get(id)).map_or(by_broker, |noted| noted.max(by_broker))
    }

    /// Notes the attempts of a message that comes back, or may come back while this one is made. A course of the same
    /// message that began earlier and ends later lowers nothing.
    pub(crate) fn note(&self, id: &str, attempts: u32) {
        self.with(|generations| generations.put(id, generations.get(id).unwrap_or(0).max(attempts)));
    }

    /// Takes an attempt back that is not charged, unless a later one was made.
    pub(crate) fn take_back(&self, id: &str, attempt: u32) {
        self.with(|generations| {
            if generations.get(id) == Some(attempt) {
                generations.put(id, attempt.saturating_sub(1));
            }
        });
    }

    /// Forgets a message that is done with.
    pub(crate) fn forget(&self, id: &str) {
        self.with(|generations| {
            if !(generations.young.is_empty() && generations.old.is_empty()) {
                generations.young.remove(id);
                generations.old.remove(id);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Generations) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn get(&self, id: &str) -> Option<u32> {
        self.young.get(id).or_else(|| self.old.get(id)).copied()
    }

    fn put(&mut self, id: &str, attempts: u32) {
        if let Some(noted) = self.young.get_mut(id) {
            *noted = attempts;
            return;
        }
        self.old.remove(id);
        if self.young.len() >= MESSAGES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id.to_owned(), attempts);
    }
}

#[cfg(test)]
mod tests;
