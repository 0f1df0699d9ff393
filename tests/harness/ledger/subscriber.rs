//! What one app has received, and what it says to each event. Called by the app of a test, read by the ledger.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use super::{Rules, index, lock};
use crate::harness::app::Reply;
use crate::harness::durable::DurableLog;

mod batch;

/// What a subscriber says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// Success: into the durable log first.
    Done,
    /// Once more, please.
    Retry,
    /// Never again: it belongs into the dead-letter topic.
    Drop,
    /// An internal error.
    Fails,
}

/// What one app has received.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(super) name: String,
    seed: u64,
    log: DurableLog,
    /// How often each message arrived.
    arrivals: Vec<AtomicU64>,
    settled: Vec<AtomicU8>,
    settled_count: AtomicU64,
    pub(super) foreign: Mutex<Vec<String>>,
    pub(super) dead: Mutex<Vec<u64>>,
    /// What it asked to be dropped.
    dropped: Mutex<BTreeSet<u64>>,
    /// How many batches it was sent, and the events of the largest.
    batches: AtomicU64,
    largest_batch: AtomicU64,
    says: fn(u64, u64) -> Says,
    slow_millis: AtomicU64,
}

#[derive(Deserialize)]
struct EventOf {
    data: Proof,
}

#[derive(Deserialize)]
struct Proof {
    n: u64,
    proof: u64,
}

impl Subscriber {
    /// A subscriber of the ledger's messages, that says of message `n` at its `k`-th arrival what `says(n, k)` returns.
    pub(crate) fn new(name: &str, log: PathBuf, ledger: &Rules, seed: u64, says: fn(u64, u64) -> Says) -> Result<Self> {
        let counts = || (0..ledger.messages_min).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            name: name.into(),
            seed,
            log: DurableLog::create(log)?,
            arrivals: counts(),
            settled: (0..ledger.messages_min).map(|_| AtomicU8::new(0)).collect(),
            settled_count: AtomicU64::new(0),
            foreign: Mutex::default(),
            dead: Mutex::default(),
            dropped: Mutex::default(),
            batches: AtomicU64::new(0),
            largest_batch: AtomicU64::new(0),
            says,
            slow_millis: AtomicU64::new(0),
        })
    }

    /// From now on it takes so long for each event.
    pub(crate) fn slow(&self, wait: Duration) {
        self.slow_millis.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it never asked for the message to be dropped.
    pub(super) fn wants(&self, n: u64) -> bool {
        (0..=self.arrivals(n)).all(|before| (self.says)(n, before) != Says::Drop)
    }

    /// One delivery: what the app answers, once what it has to write is on the disk.
    pub(crate) async fn take(&self, event: &[u8]) -> Reply {
        let Some(n) = self.recognise(event) else {
            lock(&self.foreign).push(String::from_utf8_lossy(event).into_owned());
            return Reply::ok();
        };
        self.takes_its_time().await;
        match self.decide(n).await {
            Says::Done => Reply::ok(),
            Says::Retry => Reply::word("RETRY"),
            Says::Drop => Reply::word("DROP"),
            Says::Fails => Reply::status(500),
        }
    }

    async fn takes_its_time(&self) {
        tokio::time::sleep(Duration::from_millis(self.slow_millis.load(Ordering::Relaxed))).await;
    }

    /// What it says of one more arrival of a message. Success is on the disk then.
    async fn decide(&self, n: u64) -> Says {
        let before = self.arrivals.get(index(n)).map_or(0, |count| count.fetch_add(1, Ordering::Relaxed));
        let says = (self.says)(n, before);
        match says {
            Says::Done if self.log.append(n).await.is_err() => return Says::Fails,
            Says::Done => self.settle(n),
            Says::Drop => {
                lock(&self.dropped).insert(n);
                self.settle(n);
            }
            Says::Retry | Says::Fails => {}
        }
        says
    }

    /// Writes a number that a handler component's output proves it has handled.
    pub(crate) async fn handled(&self, n: u64) -> Result<()> {
        self.log.append(n).await?;
        self.settle(n);
        Ok(())
    }

    /// What an independent client of the broker found in the dead-letter topic.
    pub(crate) fn found_dead(&self, numbers: Vec<u64>) {
        for n in &numbers {
            self.settle(*n);
        }
        *lock(&self.dead) = numbers;
    }

    /// Whether all that it asked to be dropped was found in the dead-letter topic.
    pub(crate) fn dropped_are_dead(&self) -> bool {
        let dead: BTreeSet<u64> = lock(&self.dead).iter().copied().collect();
        lock(&self.dropped).is_subset(&dead)
    }

    /// How many events the largest batch had that it was sent.
    pub(crate) fn largest_batch(&self) -> u64 {
        self.largest_batch.load(Ordering::Relaxed)
    }

    /// How many messages have arrived for good, as far as it is known while the run goes on.
    pub(crate) fn settled(&self) -> u64 {
        self.settled_count.load(Ordering::Relaxed)
    }

    /// How often a message has arrived.
    pub(super) fn arrivals(&self, n: u64) -> u64 {
        self.arrivals.get(index(n)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// What it wrote before it answered success, as it lies on the disk, oldest first.
    pub(super) fn logged(&self) -> Result<Vec<u64>> {
        self.log.read()
    }

    fn settle(&self, n: u64) {
        let first = self.settled.get(index(n)).is_some_and(|flag| flag.swap(1, Ordering::Relaxed) == 0);
        self.settled_count.fetch_add(u64::from(first), Ordering::Relaxed);
    }

    fn recognise(&self, event: &[u8]) -> Option<u64> {
        recognise(self.seed, event)
    }
}

/// The number of one of the ledger's messages, from the event that carries it; `None` if it is anything else.
pub(crate) fn recognise(seed: u64, event: &[u8]) -> Option<u64> {
    let EventOf { data } = serde_json::from_slice(event).ok()?;
    (data.proof == proof(seed, data.n)).then_some(data.n)
}

/// The same, from an event id.
pub(crate) fn recognise_id(seed: u64, id: &str) -> Option<u64> {
    let (n, given) = id.split_once('-')?;
    let n = n.parse().ok()?;
    (given.parse() == Ok(proof(seed, n))).then_some(n)
}

/// Binds a message to this run: 53 bits, so that every JSON parser keeps them.
pub(super) fn proof(seed: u64, n: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..) >> 11
}
