//! What one subscription holds: every message that was delivered and is not settled, those that wait for another
//! attempt among them. The subscription's credit is what is missing here to its limit.

use std::rc::Rc;

use super::partition::Partition;
use crate::records::Record;

/// Bits of a token that name the slot. The rest tells apart the messages that had the slot one after the other.
const SLOT_BITS: u32 = 24;

/// The most messages a subscription can hold.
pub(crate) const HELD_MAX: usize = (1 << SLOT_BITS) - 1;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// On its way to the host, or with it: its token may be settled.
    Handed,
    /// The host has acknowledged, the broker has not answered yet.
    Settling,
    /// The host wants it again later. Nobody knows its token.
    Waiting,
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    token: u64,
    pub(crate) partition: Rc<Partition>,
    /// Kept for another attempt: the broker is not asked twice.
    pub(crate) record: Rc<Record>,
    /// How often it was delivered, as far as this instance knows.
    pub(crate) count: u32,
    state: State,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: Vec<Option<Held>>,
    free: Vec<usize>,
    bytes: usize,
}

impl Ledger {
    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a message in, and gives it a token. `serial` is never used twice within a connection.
    pub(crate) fn hand(&mut self, serial: u64, partition: &Rc<Partition>, record: &Rc<Record>) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let token = serial << SLOT_BITS | slot as u64;
        self.bytes += size(record);
        let (partition, record) = (Rc::clone(partition), Rc::clone(record));
        self.slots[slot] = Some(Held { token, partition, record, count: 1, state: State::Handed });
        token
    }

    /// Hands out once more what waits. The old token was nobody's any more; this is the new one.
    pub(crate) fn hand_again(&mut self, token: u64, serial: u64) -> Option<(u64, &Held)> {
        let slot = slot(token);
        let held = self.slots.get_mut(slot)?.as_mut()?;
        if held.token != token || held.state != State::Waiting {
            return None;
        }
        held.token = serial << SLOT_BITS | slot as u64;
        held.count = held.count.saturating_add(1);
        held.state = State::Handed;
        Some((held.token, held))
    }

    /// Moves a message from being handed to another state. `None`: the token is stale.
    pub(crate) fn settle(&mut self, token: u64, state: State) -> Option<&Held> {
        let held = self.slots.get_mut(slot(token))?.as_mut()?;
        if held.token != token || held.state != State::Handed {
            return None;
        }
        held.state = state;
        Some(held)
    }

    /// Lets a message go.
    pub(crate) fn close(&mut self, token: u64) -> Option<Held> {
        let slot = slot(token);
        let place = self.slots.get_mut(slot)?;
        if place.as_ref().is_none_or(|held| held.token != token) {
            return None;
        }
        let held = place.take()?;
        self.free.push(slot);
        self.bytes = self.bytes.saturating_sub(size(&held.record));
        Some(held)
    }

    /// Whether a message waits for another attempt under this token.
    pub(crate) fn waits(&self, token: u64) -> bool {
        let held = self.slots.get(slot(token)).and_then(Option::as_ref);
        held.is_some_and(|held| held.token == token && held.state == State::Waiting)
    }

    /// How many of a partition are with the host, or settled and not confirmed.
    pub(crate) fn open_of(&self, partition: &Rc<Partition>) -> usize {
        self.of(partition).filter(|held| held.state != State::Waiting).count()
    }

    /// Forgets what waits for another attempt, of a partition that is given up.
    pub(crate) fn forget_waiting_of(&mut self, partition: &Rc<Partition>) {
        let waiting = self.of(partition).filter(|held| held.state == State::Waiting).map(|held| held.token);
        let waiting: Vec<u64> = waiting.collect();
        waiting.into_iter().for_each(|token| drop(self.close(token)));
    }

    /// Forgets everything of a partition: all its tokens are stale from now on.
    pub(crate) fn forget_all_of(&mut self, partition: &Rc<Partition>) {
        let all: Vec<u64> = self.of(partition).map(|held| held.token).collect();
        all.into_iter().for_each(|token| drop(self.close(token)));
    }

    fn of(&self, partition: &Rc<Partition>) -> impl Iterator<Item = &Held> {
        self.slots.iter().flatten().filter(|held| Rc::ptr_eq(&held.partition, partition))
    }
}

fn size(record: &Record) -> usize {
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |v| v.len())).sum();
    record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len()) + headers
}

fn slot(token: u64) -> usize {
    usize::try_from(token & HELD_MAX as u64).unwrap_or(usize::MAX)
}
