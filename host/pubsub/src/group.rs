//! How many deliveries of one subscription run at once. Called by `deliver`. Absent as yet: order per key.

use std::collections::VecDeque;

use whimbrel_resources::Subscription;

use crate::broker::Arrived;

/// Deliveries of one subscription that may be unsettled, if its metadata says nothing.
const UNSETTLED_DEFAULT: u32 = 100;

/// The subscription metadata that says otherwise.
const UNSETTLED_NAME: &str = "maxUnsettled";

/// The most that may be asked for.
const UNSETTLED_MAX: u32 = 10_000;

/// How many deliveries of a subscription may be unsettled, at the adapter and here.
pub(crate) fn max_unsettled(declared: &Subscription) -> u32 {
    let given = declared.metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(UNSETTLED_NAME));
    match given.map(|(_, value)| value.trim().parse::<u32>()) {
        Some(Ok(given)) => given.clamp(1, UNSETTLED_MAX),
        Some(Err(_)) | None => UNSETTLED_DEFAULT,
    }
}

/// What has arrived and waits for its turn. An adapter that keeps to `max-unsettled` never makes anything wait; one
/// that does not is held up at its stream once a batch waits here.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: usize,
    waiting: VecDeque<Arrived>,
}

impl Admission {
    /// Nothing waits yet.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), waiting: VecDeque::new() }
    }

    /// Whether more may be taken from the feed.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lines up what came.
    pub(crate) fn line_up(&mut self, batch: Vec<Arrived>) {
        if self.waiting.is_empty() {
            self.waiting = batch.into();
        } else {
            self.waiting.extend(batch);
        }
    }

    /// The next one, if so many running ones leave room for it.
    pub(crate) fn admit(&mut self, running: usize) -> Option<Arrived> {
        if running < self.limit { self.waiting.pop_front() } else { None }
    }

    /// All that still waits.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = Arrived> + '_ {
        self.waiting.drain(..)
    }
}

#[cfg(test)]
mod tests;
