//! The loss ledger: what was published and how it was answered, what the broker stores, what was delivered and how it was
//! settled, and what follows. Called by the fault checks.
//!
//! The kit's own process is never killed, so the ledger is kept in memory. (The ledger of `tests/harness` judges a host
//! that is killed, from what its subscribers wrote to disks, and knows no settlements: it shares only the idea.)

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::{BrokerError, SettleError, Verdict};

use crate::control::Stored;

mod account;
mod body;

pub(crate) use account::Account;
use account::Fault;

/// One run of one check.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Tells this run's messages from everybody else's.
    run: String,
    /// Its messages are CloudEvents.
    events: bool,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    entries: Vec<Entry>,
    keys: BTreeMap<String, Key>,
    faults: Vec<Fault>,
    /// The first answer that refused a message for good.
    refusal: Option<String>,
    /// Deliveries of what was never published.
    phantoms: Vec<String>,
    /// Deliveries of messages whose bytes had changed.
    mangled: u64,
    /// Deliveries that came before one that was published earlier under the same key.
    disorder: Vec<String>,
    /// Deliveries and settlements so far: tells whether anything moves.
    moves: u64,
}

/// The messages of one key.
#[derive(Debug, Default)]
struct Key {
    /// The next number within the key.
    next: u64,
    /// The highest number that was delivered.
    highest: Option<u64>,
    /// One was to be delivered again: from here on no order is promised.
    retried: bool,
}

/// One message.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    sequence: u64,
    /// Publishes under way or over.
    tries: u32,
    /// When a publish was answered with success first.
    confirmed: Option<Instant>,
    /// Answers that leave it open whether the message is stored.
    unknown: u32,
    /// Answers that say it never will be.
    refused: u32,
    deliveries: u32,
    /// Deliveries that were acknowledged with success.
    acks: u32,
    state: State,
}

/// What became of the last delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There was none.
    Undelivered,
    /// Nobody has settled it.
    Open,
    /// It was to be acknowledged, and whether that got through is not known: it may come again, and need not.
    Doubtful,
    /// It was to come again.
    Retried,
    Acked,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sheet {
    /// Its number in the ledger.
    pub(crate) n: u64,
    /// Its key; empty: none.
    pub(crate) key: String,
    /// Its bytes: printable text.
    pub(crate) data: Vec<u8>,
}

/// A delivery of a message of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The message's number.
    pub(crate) n: u64,
    /// How often it has come.
    pub(crate) count: u32,
    /// Its key; empty: none.
    pub(crate) key: String,
}

impl Ledger {
    /// An empty ledger for one check of a run with this seed.
    pub(crate) fn new(check: &str, seed: u64) -> Self {
        Self { run: format!("{check}-{seed:x}"), events: false, books: Mutex::default() }
    }

    /// The same, whose messages are CloudEvents with ids of their own.
    pub(crate) fn of_events(mut self) -> Self {
        self.events = true;
        self
    }

    /// Writes a new message with this key (empty: none) and about so many bytes.
    pub(crate) fn write(&self, key: &str, bytes: usize) -> Sheet {
        let mut books = self.books();
        let n = books.entries.len() as u64;
        let next = &mut books.keys.entry(key.to_owned()).or_default().next;
        let sequence = *next;
        *next += 1;
        books.entries.push(Entry::new(key, sequence));
        let text = body::write(&self.run, n, key, sequence, bytes);
        let data = if self.events { body::event(&self.run, n, &text) } else { text };
        Sheet { n, key: key.to_owned(), data: data.into_bytes() }
    }

    /// A publish of it begins.
    pub(crate) fn sent(&self, n: u64) {
        self.with(n, |entry| entry.tries += 1);
    }

    /// A publish of it was answered.
    pub(crate) fn answered(&self, n: u64, answer: &Result<(), BrokerError>) {
        let refused = |error: &BrokerError| {
            matches!(error, BrokerError::Permanent(_) | BrokerError::Invalid(_) | BrokerError::Unauthorized(_))
        };
        if let Some(error) = answer.as_ref().err().filter(|error| refused(error)) {
            self.books().refusal.get_or_insert_with(|| error.to_string());
        }
        self.with(n, |entry| match answer {
            Ok(()) => entry.confirmed = entry.confirmed.or_else(|| Some(Instant::now())),
            Err(error) if refused(error) => entry.refused += 1,
            Err(BrokerError::Unknown(_)) => entry.unknown += 1,
            Err(_) => {}
        });
    }

    /// Something was delivered; `None` if nobody published it.
    pub(crate) fn arrived(&self, data: &[u8]) -> Option<Seen> {
        let read = body::read(&self.run, data);
        let mut books = self.books();
        let known = read.and_then(|page| Some((page, books.entries.get_mut(index(page.n))?)));
        let Some((page, entry)) = known.filter(|(_, entry)| entry.tries > 0) else {
            let start = data.get(..data.len().min(80)).unwrap_or_default();
            books.phantoms.push(String::from_utf8_lossy(start).into_owned());
            return None;
        };
        entry.deliveries += 1;
        if entry.state != State::Acked {
            entry.state = State::Open;
        }
        let (count, key, sequence) = (entry.deliveries, entry.key.clone(), entry.sequence);
        books.moves += 1;
        books.mangled += u64::from(!page.whole);
        if count == 1 && !key.is_empty() {
            books.judge_order(&key, sequence);
        }
        Some(Seen { n: page.n, count, key })
    }

    /// A delivery of it was settled.
    pub(crate) fn settled(&self, n: u64, verdict: Verdict, answer: &Result<(), SettleError>) {
        let mut books = self.books();
        books.moves += 1;
        let Some(entry) = books.entries.get_mut(index(n)) else { return };
        match (verdict, answer) {
            (Verdict::Ack, Ok(())) => {
                entry.acks += 1;
                entry.state = State::Acked;
            }
            (Verdict::Ack, Err(_)) if entry.state != State::Acked => entry.state = State::Doubtful,
            (Verdict::Retry(_), Ok(())) if entry.state != State::Acked => entry.state = State::Retried,
            _ => {}
        }
        if verdict != Verdict::Ack {
            let key = entry.key.clone();
            books.keys.entry(key).or_default().retried = true;
        }
    }

    /// Changes when anything moves.
    pub(crate) fn moves(&self) -> u64 {
        self.books().moves
    }

    /// Deliveries that came before one that was published earlier under the same key, although none of that key had been
    /// retried.
    pub(crate) fn disorder(&self) -> Vec<String> {
        self.books().disorder.clone()
    }

    /// Messages that were sent and are not acknowledged.
    pub(crate) fn in_flight(&self) -> u64 {
        self.count(|entry| entry.tries > 0 && !entry.is_done() && (entry.confirmed.is_some() || entry.refused == 0))
    }

    /// Messages whose publish was answered with success.
    pub(crate) fn confirmed_count(&self) -> u64 {
        self.count(|entry| entry.confirmed.is_some())
    }

    /// Messages that were acknowledged.
    pub(crate) fn acked_count(&self) -> u64 {
        self.count(|entry| entry.acks > 0)
    }

    /// Messages that were acknowledged, of those from this number on.
    pub(crate) fn acked_since(&self, first: u64) -> u64 {
        let books = self.books();
        books.entries.iter().skip(index(first)).filter(|entry| entry.acks > 0).count() as u64
    }

    /// The number of the next message.
    pub(crate) fn next(&self) -> u64 {
        self.books().entries.len() as u64
    }

    /// Why the first message was refused for good, if any was.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.books().refusal.clone()
    }

    /// How often the message was delivered that was delivered most often, of those that count.
    pub(crate) fn deliveries_max(&self, counts: impl Fn(u64) -> bool) -> u32 {
        let books = self.books();
        let counted = books.entries.iter().zip(0..).filter(|(_, n)| counts(*n));
        counted.map(|(entry, _)| entry.deliveries).max().unwrap_or(0)
    }

    /// Whether everything that was confirmed is acknowledged, or may be.
    pub(crate) fn quiet(&self) -> bool {
        self.count(|entry| entry.confirmed.is_some() && !entry.is_done()) == 0
    }

    /// Writes down a fault as it happens.
    pub(crate) fn fault(&self, what: impl Into<String>) {
        self.fault_with(what, self.in_flight());
    }

    /// The same with what was in flight, where that was counted before.
    pub(crate) fn fault_with(&self, what: impl Into<String>, in_flight: u64) {
        self.books().faults.push(Fault { what: what.into(), in_flight, at: Instant::now() });
    }

    /// What this run's messages are called.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The first message that is stored more often than it was published.
    pub(crate) fn too_many(&self, copies: &BTreeMap<u64, u32>) -> Option<u64> {
        let books = self.books();
        let tries = |n: &u64| books.entries.get(index(*n)).map_or(0, |entry| entry.tries);
        copies.iter().find(|(n, copies)| **copies > tries(n)).map(|(n, _)| *n)
    }

    /// What follows from the books, and from what an independent client reads at the broker, where one does.
    pub(crate) fn account(&self, stored: Option<&[Stored]>) -> Account {
        let copies = stored.map(|stored| self.copies(stored));
        account::draw(&self.run, &self.books(), copies.as_ref())
    }

    /// How often each message is stored; what is not of this run is left out.
    pub(crate) fn copies(&self, stored: &[Stored]) -> BTreeMap<u64, u32> {
        let mut copies = BTreeMap::new();
        for page in stored.iter().filter_map(|message| body::read(&self.run, &message.data)) {
            *copies.entry(page.n).or_default() += 1;
        }
        copies
    }

    fn with(&self, n: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.books().entries.get_mut(index(n)) {
            change(entry);
        }
    }

    fn count(&self, is: impl Fn(&Entry) -> bool) -> u64 {
        self.books().entries.iter().filter(|entry| is(entry)).count() as u64
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn judge_order(&mut self, name: &str, sequence: u64) {
        let key = self.keys.entry(name.to_owned()).or_default();
        match key.highest {
            Some(highest) if highest > sequence && !key.retried => {
                self.disorder.push(format!("number {sequence} of key {name} came after number {highest}"));
            }
            highest => key.highest = highest.max(Some(sequence)),
        }
    }
}

impl Entry {
    fn new(key: &str, sequence: u64) -> Self {
        Self {
            key: key.to_owned(),
            sequence,
            tries: 0,
            confirmed: None,
            unknown: 0,
            refused: 0,
            deliveries: 0,
            acks: 0,
            state: State::Undelivered,
        }
    }

    fn is_done(&self) -> bool {
        self.acks > 0 || self.state == State::Doubtful
    }

    /// Whether a publish was answered with success in the shade of a fault: since shortly before it, up to a moment after
    /// things were mended.
    fn confirmed_near(&self, faults: &[Fault], before: Duration, after: Duration) -> bool {
        let Some(confirmed) = self.confirmed else { return false };
        faults.iter().any(|fault| fault.at <= confirmed + before && confirmed <= fault.at + after)
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
