//! What one subscription holds: every message that was delivered on its channel and is not settled. The broker counts the
//! same, and delivers no more than the subscription's credit.

use std::collections::BTreeSet;
use std::time::Instant;

use whimbrel_sdk::Message;

/// Bits of a token that name the slot. The rest tells apart the messages that had the slot one after the other.
const SLOT_BITS: u32 = 16;

/// The most messages a subscription can hold: AMQP's prefetch has as many bits.
pub(crate) const HELD_MAX: usize = (1 << SLOT_BITS) - 1;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// On its way to the host, or with it: its token may be settled.
    Handed,
    /// The host wants it again later. Nobody knows its token.
    Waiting,
    /// It cannot be handed out, and stays with the broker.
    Stuck,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) token: u64,
    /// What the channel calls it.
    pub(crate) tag: u64,
    pub(crate) id: String,
    /// How often it was delivered.
    pub(crate) count: u32,
    pub(crate) state: State,
    /// When the broker delivered it, about.
    pub(crate) since: Instant,
    /// To hand it over again, if there was room to keep it.
    pub(crate) copy: Option<Message>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: Vec<Option<Held>>,
    free: Vec<usize>,
    tags: BTreeSet<u64>,
}

impl Ledger {
    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.tags.len()
    }

    /// Takes a message in. `serial` is never used twice within a connection of the host's; it becomes a token.
    pub(crate) fn insert(&mut self, serial: u64, mut held: Held) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        held.token = serial << SLOT_BITS | slot as u64;
        let token = held.token;
        self.tags.insert(held.tag);
        self.slots[slot] = Some(held);
        token
    }

    /// What a token stands for.
    pub(crate) fn get(&mut self, token: u64) -> Option<&mut Held> {
        self.slots.get_mut(slot(token))?.as_mut().filter(|held| held.token == token)
    }

    /// The same, if it may be settled.
    pub(crate) fn handed(&mut self, token: u64) -> Option<&mut Held> {
        self.get(token).filter(|held| held.state == State::Handed)
    }

    /// Gives a message a new token: it is handed over again.
    pub(crate) fn hand_again(&mut self, token: u64, serial: u64) -> Option<&mut Held> {
        let held = self.get(token)?;
        held.token = serial << SLOT_BITS | slot(token) as u64;
        held.count = held.count.saturating_add(1);
        held.state = State::Handed;
        Some(held)
    }

    /// Lets a message go.
    pub(crate) fn remove(&mut self, token: u64) -> Option<Held> {
        let slot = slot(token);
        let held = self.slots.get_mut(slot)?.take_if(|held| held.token == token)?;
        self.free.push(slot);
        self.tags.remove(&held.tag);
        Some(held)
    }

    /// The oldest message that is held.
    pub(crate) fn lowest_tag(&self) -> Option<u64> {
        self.tags.first().copied()
    }

    /// Lets all go.
    pub(crate) fn clear(&mut self) -> Vec<Held> {
        let all = self.slots.drain(..).flatten().collect();
        self.free.clear();
        self.tags.clear();
        all
    }
}

fn slot(token: u64) -> usize {
    usize::try_from(token & HELD_MAX as u64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
