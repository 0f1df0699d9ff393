//! What one subscription holds: every entry that was delivered, or fetched ahead, and is not settled.
//!
//! The subscription's credit is what is missing here to its limit, so an entry stays in the ledger until Redis has
//! confirmed its acknowledgement, and while it waits for its next attempt.

use crate::protocol::EntryId;

/// Bits of a token that name the slot. The rest tells apart the entries that had the slot one after the other.
const SLOT_BITS: u32 = 24;

/// The most entries a subscription can hold.
pub(crate) const HELD_MAX: usize = (1 << SLOT_BITS) - 1;

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// On its way to the host, or with it: its token may be settled.
    Handed,
    /// The host has acknowledged, Redis has not answered yet.
    Settling,
    /// The host wants it again later. Nobody knows its token.
    Waiting,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) token: u64,
    pub(crate) id: EntryId,
    /// How often the broker has delivered it.
    pub(crate) count: Option<u32>,
    pub(crate) state: State,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: Vec<Option<Held>>,
    free: Vec<usize>,
}

impl Ledger {
    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes an entry in, and gives it a token. `serial` is never used twice within a connection, and grows.
    pub(crate) fn hand(&mut self, serial: u64, id: EntryId, count: Option<u32>) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let token = serial << SLOT_BITS | slot as u64;
        self.slots[slot] = Some(Held { token, id, count, state: State::Handed });
        token
    }

    /// What a token stands for.
    pub(crate) fn get(&self, token: u64) -> Option<Held> {
        self.slots.get(slot(token)).copied().flatten().filter(|held| held.token == token)
    }

    /// Moves an entry from being handed to another state. None: the token is stale.
    pub(crate) fn settle(&mut self, token: u64, state: State) -> Option<Held> {
        let held = self.slots.get_mut(slot(token))?.as_mut()?;
        if held.token != token || held.state != State::Handed {
            return None;
        }
        held.state = state;
        Some(*held)
    }

    /// Lets an entry go.
    pub(crate) fn close(&mut self, token: u64) -> Option<Held> {
        let held = self.get(token)?;
        self.slots[slot(token)] = None;
        self.free.push(slot(token));
        Some(held)
    }

    /// Whether an entry is held.
    pub(crate) fn holds(&self, id: EntryId) -> bool {
        // Asked only for what was claimed or read again, which is rare; what comes new cannot be held.
        self.all().any(|held| held.id == id)
    }

    /// All that is held.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Held> {
        self.slots.iter().flatten()
    }

    /// Forgets what was handed over: the tokens are stale from now on. What waits for its next attempt goes on waiting.
    pub(crate) fn forget_handed(&mut self) {
        let tokens: Vec<u64> = self.all().filter(|held| held.state != State::Waiting).map(|held| held.token).collect();
        for token in tokens {
            self.close(token);
        }
    }

    /// Whether a token was given out before a serial number.
    pub(crate) fn is_older(token: u64, serial: u64) -> bool {
        token >> SLOT_BITS < serial
    }
}

fn slot(token: u64) -> usize {
    usize::try_from(token & HELD_MAX as u64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
