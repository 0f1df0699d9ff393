//! What is remembered of messages that went back to the broker before their time, because their channel was lost or they
//! were held for too long: how often they were delivered, and when they are wanted again. If they come to this process
//! again, it goes on where it was.

use std::collections::HashMap;
use std::time::Instant;

/// Messages in one of the two generations. When the young one is full the old one is forgotten: a message that another
/// process took never comes back here.
const MESSAGES_MAX: usize = 10_000;

/// What is remembered of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// How often it was delivered.
    pub(crate) count: u32,
    /// When it is wanted again. None: as soon as can be.
    pub(crate) due: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Later {
    young: HashMap<(String, String), Earlier>,
    old: HashMap<(String, String), Earlier>,
}

impl Later {
    /// Remembers a message of a queue.
    pub(crate) fn put(&mut self, queue: &str, id: String, earlier: Earlier) {
        if self.young.len() >= MESSAGES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert((queue.to_owned(), id), earlier);
    }

    /// What is remembered of a message that has come.
    pub(crate) fn take(&mut self, queue: &str, id: &str) -> Option<Earlier> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let key = (queue.to_owned(), id.to_owned());
        let old = self.old.remove(&key);
        self.young.remove(&key).or(old)
    }
}

#[cfg(test)]
mod tests;
