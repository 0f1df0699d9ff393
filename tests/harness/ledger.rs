//! The loss ledger. It knows every message that was sent and what its publisher was told, reads the logs that the
//! subscribing apps wrote durably before they answered success, and the dead-letter topic as an independent client
//! reads it. Called by every test that says something about loss.
//!
//! A message whose publish was answered with success and that is in neither place is lost. Nothing else counts as "not
//! lost". Publishers send a message again until it is confirmed, as real ones do, so that every message ends confirmed.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use serde::Deserialize;
use tokio::sync::watch;

use super::app::Reply;
use super::durable::DurableLog;
use super::scale::scaled;

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
    name: String,
    seed: u64,
    log: DurableLog,
    /// How often each message arrived.
    arrivals: Vec<AtomicU64>,
    settled: Vec<AtomicU8>,
    settled_count: AtomicU64,
    foreign: Mutex<Vec<String>>,
    dead: Mutex<Vec<u64>>,
    says: fn(u64, u64) -> Says,
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
            says,
        })
    }

    /// One delivery: what the app answers, once what it has to write is on the disk.
    pub(crate) async fn take(&self, event: &[u8]) -> Reply {
        let Some(n) = self.recognise(event) else {
            lock(&self.foreign).push(String::from_utf8_lossy(event).into_owned());
            return Reply::ok();
        };
        let before = self.arrivals.get(index(n)).map_or(0, |count| count.fetch_add(1, Ordering::Relaxed));
        match (self.says)(n, before) {
            Says::Done => match self.log.append(n).await {
                Ok(()) => {
                    self.settle(n);
                    Reply::ok()
                }
                Err(_) => Reply::status(500),
            },
            Says::Retry => Reply::word("RETRY"),
            Says::Drop => {
                self.settle(n);
                Reply::word("DROP")
            }
            Says::Fails => Reply::status(500),
        }
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

    /// How many messages have arrived for good, as far as it is known while the run goes on.
    pub(crate) fn settled(&self) -> u64 {
        self.settled_count.load(Ordering::Relaxed)
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
fn proof(seed: u64, n: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..) >> 11
}

/// A fault, and what it struck.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// What was done.
    pub(crate) what: String,
    /// Messages sent and not yet arrived for good at every subscriber.
    pub(crate) in_flight: u64,
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
        for n in subscriber.log.read()? {
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
                }
                None => account.phantom.push(n.to_string()),
            }
        }
        for ((state, count), n) in self.states.iter().zip(&logged).zip(0_u64..) {
            match (state.load(Ordering::Relaxed), *count) {
                (CONFIRMED, 0) => account.lost.push(n),
                (UNSENT, 1..) => account.phantom.push(n.to_string()),
                (_, 1..) => account.arrived += 1,
                _ => {}
            }
        }
        Ok(account)
    }
}

/// What the ledger found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Decided every choice.
    pub(crate) seed: u64,
    /// Messages sent.
    pub(crate) messages: u64,
    /// Messages confirmed.
    pub(crate) confirmed: u64,
    /// Publishes that failed or got no answer, and were sent again.
    pub(crate) unknown: u64,
    /// What was done to it.
    pub(crate) faults: Vec<Fault>,
    /// Per subscribing app.
    pub(crate) accounts: Vec<Account>,
}

/// What the ledger found about one subscribing app.
#[derive(Debug, Default)]
pub(crate) struct Account {
    app: String,
    arrived: u64,
    dead: u64,
    /// Confirmed, and in neither place.
    pub(crate) lost: Vec<u64>,
    /// Arrived, and never sent.
    pub(crate) phantom: Vec<String>,
    /// Arrivals of what had arrived before.
    pub(crate) duplicates: u64,
    /// First arrivals after a later message's.
    pub(crate) reordered: u64,
}

impl Account {
    fn wrongs(&self) -> Vec<String> {
        let mut wrong = vec![];
        if !self.lost.is_empty() {
            let some: Vec<_> = self.lost.iter().take(20).collect();
            wrong.push(format!("{} of {}'s messages were LOST, among them {some:?}", self.lost.len(), self.app));
        }
        if !self.phantom.is_empty() {
            let some: Vec<_> = self.phantom.iter().take(3).collect();
            wrong.push(format!("{} PHANTOMS reached {}, among them {some:?}", self.phantom.len(), self.app));
        }
        wrong
    }
}

impl Report {
    fn broken_rules(&self, rules: &Rules) -> Vec<String> {
        let mut wrong = vec![];
        if self.confirmed < rules.messages_min {
            wrong.push(format!("only {} messages were confirmed, of {}", self.confirmed, rules.messages_min));
        }
        if self.faults.len() < rules.faults_min {
            wrong.push(format!("only {} faults, of {}", self.faults.len(), rules.faults_min));
        }
        let mut in_flight: Vec<_> = self.faults.iter().map(|fault| fault.in_flight).collect();
        in_flight.sort_unstable();
        let median = in_flight.get(in_flight.len() / 2).copied().unwrap_or(0);
        if median < rules.in_flight_median_min {
            wrong.push(format!("the faults struck too little: {in_flight:?} messages in flight"));
        }
        wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, messages, confirmed, unknown, .. } = self;
        writeln!(f, "seed {seed}: {messages} sent, {confirmed} confirmed, {unknown} publishes repeated")?;
        for fault in &self.faults {
            writeln!(f, "  {}: {} in flight", fault.what, fault.in_flight)?;
        }
        for account in &self.accounts {
            let Account { app, arrived, dead, lost, phantom, duplicates, reordered } = account;
            let (lost, phantom) = (lost.len(), phantom.len());
            writeln!(f, "  {app}: {arrived} arrived ({dead} of them in the dead-letter topic), {lost} lost,")?;
            writeln!(f, "    {phantom} phantoms, {duplicates} duplicates, {reordered} reordered")?;
        }
        Ok(())
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
