//! Load that goes on while something breaks.

use super::harness::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use whimbrel_sdk::{Adapter, Message};

/// How long a publish may wait for a broker that comes back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages of one publish call.
const CALL: u32 = 10;

/// As many keys are published to, each with an order of its own.
const KEYS: u32 = 7;

/// Publishes numbers, one call after the other; each must be confirmed.
#[derive(Default)]
pub(crate) struct Load {
    confirmed: Cell<u32>,
    is_over: Cell<bool>,
}

impl Load {
    /// Publishes until it is told to end.
    pub(crate) async fn run(&self, bus: &Bus, topic: &str) {
        while !self.is_over.get() {
            let first = self.confirmed.get();
            let one = |number: u32| Message { key: Some(key(number)), ..message(topic, number.to_string().as_bytes()) };
            let results = bus.adapter.publish((first..first + CALL).map(one).collect(), PATIENCE).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            self.confirmed.set(first + CALL);
            // Load, and no race: what runs beside it has the same processor.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until so many more are confirmed.
    pub(crate) async fn goes_on(&self, by: u32) {
        let from = self.confirmed.get();
        until_within(PATIENCE, "publishing goes on", async || self.confirmed.get() >= from + by).await;
    }

    pub(crate) fn end(&self) {
        self.is_over.set(true);
    }

    /// What was confirmed: the numbers from 0 on.
    pub(crate) fn numbers(&self) -> BTreeSet<u32> {
        (0..self.confirmed.get()).collect()
    }
}

fn key(number: u32) -> String {
    format!("key-{}", number % KEYS)
}

/// Of what is stored: the numbers, how many stand there twice, and whether those of each key are in order.
pub(crate) fn ledger(stored: &[Stored]) -> (BTreeSet<u32>, usize, bool) {
    let numbers: Vec<u32> = stored.iter().map(|stored| stored.text().parse().unwrap()).collect();
    let mut last: BTreeMap<u32, u32> = BTreeMap::new();
    let ordered = |number: &u32| last.insert(number % KEYS, *number).is_none_or(|last| last < *number);
    let in_order = numbers.iter().all(ordered);
    let all: BTreeSet<u32> = numbers.iter().copied().collect();
    let doubles = numbers.len() - all.len();
    (all, doubles, in_order)
}
