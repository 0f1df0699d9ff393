//! The loss ledger. It knows every message that was sent and what its publisher was told, reads the logs that the
//! subscribing apps wrote durably before they answered success, and the dead-letter topic as an independent client
//! reads it. Called by every test that says something about loss.
//!
//! A message whose publish was answered with success and that is in neither place is lost. Nothing else counts as "not
//! lost". Publishers send a message again until it is confirmed, as real ones do, so that every message ends confirmed.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::scale::scaled;

mod report;
mod subscriber;

pub(crate) use report::{Fault, Report};
pub(crate) use subscriber::{Says, Subscriber, recognise, recognise_id};

use report::Account;
use subscriber::proof;

/// A message in the ledger: not sent yet, sent at least once, confirmed with success.
const UNSENT: u8 = 0;
const SENT: u8 = 1;
const CONFIRMED: u8 = 2;

/// What a run must have been like to say anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Messages published.
    pub(crate) messages_min: u64,
    /// Faults that happened.
    pub(crate) faults_min: usize,
    /// Messages in flight at the fault in the middle, when all are ordered by that number.
    pub(crate) in_flight_median_min: u64,
}

impl Rules {
    /// What the product promises is proven with.
    pub(crate) fn full() -> Self {
        Self { messages_min: scaled(20_000), faults_min: 10, in_flight_median_min: 10 }
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct Ledger {
    seed: u64,
    rules: Rules,
    states: Vec<AtomicU8>,
    next: AtomicU64,
    sent: AtomicU64,
    confirmed: AtomicU64,
    unknown: AtomicU64,
    /// How many messages may be sent before the next fault.
    gate: watch::Sender<u64>,
    subscribers: Vec<Arc<Subscriber>>,
    faults: Mutex<Vec<Fault>>,
    more: fn(u64) -> String,
}

impl Ledger {
    /// A ledger for as many messages as the rules ask for. `more(n)` is put into the body of message `n`, as it stands:
    /// `,"key":value`.
    pub(crate) fn new(seed: u64, rules: Rules, subscribers: Vec<Arc<Subscriber>>, more: fn(u64) -> String) -> Self {
        Self {
            seed,
            rules,
            states: (0..rules.messages_min).map(|_| AtomicU8::new(UNSENT)).collect(),
            next: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            gate: watch::Sender::new(0),
            subscribers,
            faults: Mutex::default(),
            more,
        }
    }

    /// How many messages the run has in all.
    pub(crate) fn messages(&self) -> u64 {
        self.rules.messages_min
    }

    /// Lets the publishers go on until so many are sent.
    pub(crate) fn allow(&self, messages: u64) {
        self.gate.send_if_modified(|gate| {
            let more = messages > *gate;
            *gate = messages.max(*gate);
            more
        });
    }

    /// The next message to send, once it may be; `None` when all are sent.
    pub(crate) async fn next(&self) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        if n >= self.messages() {
            return None;
        }
        self.gate.subscribe().wait_for(|gate| n < *gate).await.ok()?;
        Some(n)
    }

    /// The body of a message; from here on it counts as sent.
    pub(crate) fn send(&self, n: u64) -> String {
        if let Some(state) = self.states.get(index(n))
            && state.compare_exchange(UNSENT, SENT, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        let more = (self.more)(n);
        format!(r#"{{"n":{n},"proof":{},"pad":"{}"{more}}}"#, proof(self.seed, n), "x".repeat(200))
    }

    /// The event id that a message is published under.
    pub(crate) fn event_id(&self, n: u64) -> String {
        format!("{n}-{}", proof(self.seed, n))
    }

    /// Its publish was answered with success.
    pub(crate) fn confirm(&self, n: u64) {
        if let Some(state) = self.states.get(index(n)) {
            state.store(CONFIRMED, Ordering::Relaxed);
            self.confirmed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its publish failed, or got no answer: it may be stored or not.
    pub(crate) fn doubt(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// How many messages were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many messages were confirmed so far.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Messages sent and not yet arrived for good everywhere.
    pub(crate) fn in_flight(&self) -> u64 {
        let settled = self.subscribers.iter().map(|subscriber| subscriber.settled()).min();
        self.sent().saturating_sub(settled.unwrap_or(0))
    }

    /// Writes down a fault as it happens.
    pub(crate) fn fault(&self, what: impl Into<String>) {
        let fault = Fault { what: what.into(), in_flight: self.in_flight() };
        lock(&self.faults).push(fault);
    }

    /// Whether everything sent is confirmed and has arrived for good everywhere, as far as it is known.
    pub(crate) fn quiet(&self) -> bool {
        self.confirmed() >= self.messages() && self.subscribers.iter().all(|one| one.settled() >= self.messages())
    }

    /// The verdict, from what is on the disks.
    ///
    /// # Errors
    /// Something was lost or appeared from nowhere, or the run proves nothing.
    pub(crate) fn close(&self) -> Result<Report> {
        let report = self.report()?;
        eprintln!("{report}");
        let mut wrong = report.broken_rules(&self.rules);
        for account in &report.accounts {
            wrong.extend(account.wrongs());
        }
        if !wrong.is_empty() {
            bail!("{}\n{report}", wrong.join("\n"));
        }
        Ok(report)
    }

    fn report(&self) -> Result<Report> {
        let accounts = self.subscribers.iter().map(|subscriber| self.account(subscriber));
        Ok(Report {
            seed: self.seed,
            messages: self.sent(),
            confirmed: self.confirmed(),
            unknown: self.unknown.load(Ordering::Relaxed),
            faults: lock(&self.faults).clone(),
            accounts: accounts.collect::<Result<_>>()?,
        })
    }

    fn account(&self, subscriber: &Subscriber) -> Result<Account> {
        let mut account = Account { app: subscriber.name.clone(), ..Account::default() };
        account.phantom.clone_from(&lock(&subscriber.foreign));
        let mut logged = vec![0_u32; self.states.len()];
        let mut newest = 0;
        for n in subscriber.logged()? {
            match logged.get_mut(index(n)) {
                Some(count) if *count == 0 => {
                    *count = 1;
                    account.reordered += u64::from(n < newest);
                    newest = newest.max(n);
                }
                Some(_) => account.duplicates += 1,
                None => account.phantom.push(n.to_string()),
            }
        }
        for n in lock(&subscriber.dead).iter() {
            match logged.get_mut(index(*n)) {
                Some(count) => {
                    account.dead += u64::from(*count == 0);
                    account.duplicates += u64::from(*count > 0);
                    *count = 1;
                    if subscriber.wants(*n) {
                        account.dead_by_mistake.push(*n);
                    }
                }
                None => account.phantom.push(n.to_string()),
            }
        }
        for ((state, count), n) in self.states.iter().zip(&logged).zip(0_u64..) {
            match (state.load(Ordering::Relaxed), *count) {
                (CONFIRMED, 0) => account.lost.push((n, subscriber.arrivals(n))),
                (UNSENT, 1..) => account.phantom.push(n.to_string()),
                (_, 1..) => account.arrived += 1,
                _ => {}
            }
        }
        Ok(account)
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
