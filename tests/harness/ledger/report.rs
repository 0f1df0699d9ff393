//! What the ledger found, and what is wrong with it.

use std::fmt;

use super::Rules;

/// A fault, and what it struck.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// What was done.
    pub(crate) what: String,
    /// Messages sent and not yet arrived for good at every subscriber.
    pub(crate) in_flight: u64,
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
    pub(super) app: String,
    pub(super) arrived: u64,
    pub(super) dead: u64,
    /// Confirmed, and in neither place; and how often it was asked to take it nevertheless.
    pub(crate) lost: Vec<(u64, u64)>,
    /// Arrived, and never sent.
    pub(crate) phantom: Vec<String>,
    /// Arrivals of what had arrived before.
    pub(crate) duplicates: u64,
    /// In the dead-letter topic, though the app never asked for them to be dropped.
    pub(crate) dead_by_mistake: Vec<u64>,
    /// First arrivals after a later message's.
    pub(crate) reordered: u64,
}

impl Account {
    /// Lost or phantom messages, for people.
    pub(super) fn wrongs(&self) -> Vec<String> {
        let mut wrong = vec![];
        if !self.lost.is_empty() {
            let some: Vec<_> = self.lost.iter().take(20).collect();
            wrong.push(format!(
                "{} of {}'s messages were LOST, among them (number, requests) {some:?}",
                self.lost.len(),
                self.app
            ));
        }
        if !self.phantom.is_empty() {
            let some: Vec<_> = self.phantom.iter().take(3).collect();
            wrong.push(format!("{} PHANTOMS reached {}, among them {some:?}", self.phantom.len(), self.app));
        }
        wrong
    }
}

impl Report {
    /// Why the run proves nothing, for people.
    pub(super) fn broken_rules(&self, rules: &Rules) -> Vec<String> {
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
            let Account { app, arrived, dead, lost, phantom, duplicates, reordered, dead_by_mistake: _ } = account;
            let (lost, phantom) = (lost.len(), phantom.len());
            writeln!(f, "  {app}: {arrived} arrived ({dead} of them in the dead-letter topic), {lost} lost,")?;
            writeln!(f, "    {phantom} phantoms, {duplicates} duplicates, {reordered} reordered")?;
        }
        Ok(())
    }
}
