//! Which messages of a channel are not confirmed yet. The broker numbers them as they come, from 1.

use std::collections::VecDeque;

/// A publisher's messages and what became of each: `T` is whatever it wants back.
#[derive(Debug)]
pub(crate) struct Confirms<T> {
    /// The number of the first in `slots`.
    base: u64,
    slots: VecDeque<Option<T>>,
}

impl<T> Default for Confirms<T> {
    fn default() -> Self {
        Self { base: 1, slots: VecDeque::new() }
    }
}

impl<T> Confirms<T> {
    /// How many numbers lie between the oldest that is not confirmed and the newest.
    pub(crate) fn span(&self) -> usize {
        self.slots.len()
    }

    /// One more was sent.
    pub(crate) fn push(&mut self, message: T) {
        self.slots.push_back(Some(message));
    }

    /// The broker has answered for one, or for all up to it.
    pub(crate) fn take(&mut self, tag: u64, multiple: bool) -> Vec<T> {
        let at = tag.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        let Some(at) = at.filter(|at| *at < self.slots.len()) else { return Vec::new() };
        let taken: Vec<T> = if multiple {
            self.base += at as u64 + 1;
            self.slots.drain(..=at).flatten().collect()
        } else {
            self.slots.get_mut(at).and_then(Option::take).into_iter().collect()
        };
        while self.slots.front().is_some_and(Option::is_none) {
            self.slots.pop_front();
            self.base += 1;
        }
        taken
    }

    /// All that is not confirmed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }

    /// Nothing will be confirmed any more.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.base += self.slots.len() as u64;
        self.slots.drain(..).flatten().collect()
    }
}

#[cfg(test)]
mod tests;
