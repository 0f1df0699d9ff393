//! One queue: what waits, what is in flight, what waits to be tried again. Called by the tasks around it.
//!
//! A plain data structure, so that a test with a seed can compare it with a simple model. Absent on purpose: tasks, and the
//! clock, which the caller lends and which is asked only where the time matters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::broker::room::Kept;

/// A wait beyond this is as good as for ever, and the clock can still say when it ends.
const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How much one queue may hold, in flight or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Limits {
    /// Messages.
    pub(in super::super) messages: usize,
    /// Bytes, as `room::size` counts them.
    pub(in super::super) bytes: usize,
}

/// Names who takes from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HolderId(u64);

/// A message that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// The number it was pushed with.
    pub(super) id: u64,
    /// The message, shared with the queues of other groups.
    pub(super) message: Rc<Kept>,
    /// How often it was taken, this time included.
    pub(super) count: u32,
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// Ready to be taken, by their place in the line.
    ready: BTreeMap<u64, Entry>,
    /// Those of `ready` that expire: when, and their place.
    expiring: BTreeSet<(Instant, u64)>,
    in_flight: HashMap<u64, Held>,
    /// To be tried again, by when. They count against their holder, but not as in flight: their token is spent.
    retrying: BTreeMap<(Instant, u64), Held>,
    holders: BTreeMap<HolderId, Credit>,
    bytes: usize,
    next_place: u64,
    next_holder: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    message: Rc<Kept>,
    bytes: usize,
    expires: Option<Instant>,
    count: u32,
}

#[derive(Debug)]
struct Held {
    holder: HolderId,
    place: u64,
    entry: Entry,
}

#[derive(Debug)]
struct Credit {
    held: usize,
    max: usize,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ready: BTreeMap::new(),
            expiring: BTreeSet::new(),
            in_flight: HashMap::new(),
            retrying: BTreeMap::new(),
            holders: BTreeMap::new(),
            bytes: 0,
            next_place: 0,
            next_holder: 0,
        }
    }

    /// Messages, in flight or not.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.in_flight.len() + self.retrying.len()
    }

    /// Whether one more message fits, if need be after dropping what has expired. An empty queue takes any message that may
    /// be published, or the largest never had room: what it counts for besides its data would be too much.
    pub(super) fn has_room(&mut self, bytes: usize, clock: impl Fn() -> Instant) -> bool {
        let fits = |queue: &Self| {
            queue.len() < queue.limits.messages && (queue.bytes == 0 || queue.bytes + bytes <= queue.limits.bytes)
        };
        if fits(self) {
            return true;
        }
        self.tidy(clock);
        fits(self)
    }

    /// Adds a message at the end of the line. The caller has asked for room.
    pub(super) fn push(&mut self, id: u64, message: Rc<Kept>, expires: Option<Instant>) {
        let bytes = message.size();
        self.bytes += bytes;
        let place = self.new_place();
        self.put(place, Entry { id, message, bytes, expires, count: 0 });
    }

    /// Lets somebody take from it, so many unsettled at most.
    pub(super) fn attach(&mut self, max_unsettled: usize) -> HolderId {
        let holder = HolderId(self.next_holder);
        self.next_holder += 1;
        self.holders.insert(holder, Credit { held: 0, max: max_unsettled });
        holder
    }

    /// Ends that: what the holder had in flight goes back to its place, what waits to be tried again goes on waiting.
    pub(super) fn detach(&mut self, holder: HolderId) {
        self.holders.remove(&holder);
        let tokens: Vec<u64> =
            self.in_flight.iter().filter(|(_, held)| held.holder == holder).map(|(token, _)| *token).collect();
        for token in tokens {
            if let Some(held) = self.in_flight.remove(&token) {
                self.put(held.place, held.entry);
            }
        }
    }

    /// Whether a holder may take one more.
    pub(super) fn holder_has_room(&self, holder: HolderId) -> bool {
        self.holders.get(&holder).is_some_and(|credit| credit.held < credit.max)
    }

    /// Takes the first in line; nothing, if there is none or the holder's credit is used up. [`tidy`](Self::tidy) first.
    pub(super) fn take(&mut self, holder: HolderId, token: u64) -> Option<Taken> {
        let credit = self.holders.get_mut(&holder)?;
        if credit.held >= credit.max {
            return None;
        }
        let (place, mut entry) = self.ready.pop_first()?;
        credit.held += 1;
        if let Some(expires) = entry.expires {
            self.expiring.remove(&(expires, place));
        }
        entry.count = entry.count.saturating_add(1);
        let taken = Taken { id: entry.id, message: Rc::clone(&entry.message), count: entry.count };
        self.in_flight.insert(token, Held { holder, place, entry });
        Some(taken)
    }

    /// Forgets a message; `false` if the holder does not have it in flight.
    pub(super) fn ack(&mut self, holder: HolderId, token: u64) -> bool {
        let Some(held) = self.settle(holder, token) else { return false };
        self.release(holder);
        self.bytes -= held.entry.bytes;
        true
    }

    /// Keeps a message back for a while; `false` if the holder does not have it in flight.
    pub(super) fn retry(&mut self, holder: HolderId, token: u64, wait: Duration, clock: impl Fn() -> Instant) -> bool {
        let Some(held) = self.settle(holder, token) else { return false };
        let due = clock() + wait.min(WAIT_MAX);
        self.retrying.insert((due, held.place), held);
        true
    }

    /// When the next message that waits to be tried again is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.retrying.first_key_value().map(|((due, _), _)| *due)
    }

    /// Puts what is due at the end of the line, and drops what has expired.
    pub(super) fn tidy(&mut self, clock: impl Fn() -> Instant) {
        if self.retrying.is_empty() && self.expiring.is_empty() {
            return;
        }
        let now = clock();
        while let Some(first) = self.retrying.first_entry()
            && first.key().0 <= now
        {
            let Held { holder, entry, .. } = first.remove();
            self.release(holder);
            // At the end, so that a message that fails for ever never keeps the others from their turn.
            let place = self.new_place();
            self.put(place, entry);
        }
        while let Some(&(expires, place)) = self.expiring.first()
            && expires <= now
        {
            self.expiring.pop_first();
            if let Some(entry) = self.ready.remove(&place) {
                self.bytes -= entry.bytes;
            }
        }
    }

    fn settle(&mut self, holder: HolderId, token: u64) -> Option<Held> {
        if self.in_flight.get(&token)?.holder != holder {
            return None;
        }
        self.in_flight.remove(&token)
    }

    fn release(&mut self, holder: HolderId) {
        if let Some(credit) = self.holders.get_mut(&holder) {
            credit.held -= 1;
        }
    }

    fn put(&mut self, place: u64, entry: Entry) {
        if let Some(expires) = entry.expires {
            self.expiring.insert((expires, place));
        }
        self.ready.insert(place, entry);
    }

    fn new_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }
}

#[cfg(test)]
mod tests;
