//! What follows from the books of a run: losses by kind, and everything else worth telling. Called by the checks, each of
//! which judges the kinds that its promise is about: what another check is meant for is told, and fails nothing here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::{Books, Entry, State};
use crate::check::Wrong;

/// How long before a fault a success may be answered whose message the fault still destroyed: an adapter that answers
/// before the broker has confirmed is caught by the check of lost confirms, and by no other.
const SHADE_BEFORE: Duration = Duration::from_millis(250);

/// How long after a fault the same holds: an outage, and the way back.
const SHADE_AFTER: Duration = Duration::from_secs(30);

/// The checks that are about what others meet on their way.
const LOST_CONFIRMS: &str = "S4";
const REDELIVERY: &str = "S5";
const RETRIES: &str = "B3";
const FIDELITY: &str = "C4";

/// Numbers that are shown of each kind.
const SHOWN_MAX: usize = 10;

/// A fault as it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What was done.
    pub(super) what: String,
    /// Messages sent and not acknowledged at that moment.
    pub(super) in_flight: u64,
    pub(super) at: Instant,
}

/// The end of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    run: String,
    faults: Vec<(String, u64)>,
    sent: u64,
    confirmed: u64,
    unknown: u64,
    delivered: u64,
    acked: u64,
    /// Confirmed long before any fault, and not in the broker.
    pub(crate) vanished: Vec<u64>,
    /// Confirmed about when a fault struck, and not in the broker.
    pub(crate) confirmed_in_vain: Vec<u64>,
    /// Stored (or, where nobody reads the broker, confirmed), and never delivered.
    pub(crate) undelivered: Vec<u64>,
    /// Delivered, left unsettled, and never delivered again.
    pub(crate) forgotten: Vec<u64>,
    /// To be delivered again after a wait, and never delivered again.
    pub(crate) retries_lost: Vec<u64>,
    /// Refused for good at each try, and stored or delivered nevertheless.
    pub(crate) refused_and_stored: Vec<u64>,
    /// What was delivered and never published.
    pub(crate) phantoms: Vec<String>,
    /// Deliveries beyond the first of each message.
    pub(crate) duplicates: u64,
    /// Acknowledgements beyond the first of each message.
    pub(crate) acked_again: u64,
    /// Messages stored more than once.
    pub(crate) stored_twice: Vec<u64>,
    mangled: u64,
}

impl Account {
    /// Why the run proves nothing, if it does not: too little was in flight when it was struck.
    pub(crate) fn too_weak(&self, faults_min: usize, in_flight_median_min: u64) -> Option<String> {
        let mut in_flight: Vec<_> = self.faults.iter().map(|(_, in_flight)| *in_flight).collect();
        in_flight.sort_unstable();
        let median = in_flight.get(in_flight.len() / 2).copied().unwrap_or(0);
        let weak = in_flight.len() < faults_min || median < in_flight_median_min;
        weak.then(|| {
            format!(
                "the run proves nothing: {} faults (at least {faults_min} are wanted), messages in flight at each \
                 {in_flight:?} (the median must be at least {in_flight_median_min}); try again, or at a larger scale",
                in_flight.len()
            )
        })
    }
}

impl Account {
    /// What is wrong, if anything, with the check that is about it.
    pub(crate) fn judge(&self) -> Result<(), Wrong> {
        self.judge_store()?;
        self.first(&[
            (None, self.undelivered.len(), "messages that the broker has were never delivered"),
            (Some(REDELIVERY), self.forgotten.len(), "messages were left unsettled and never came again"),
            (Some(RETRIES), self.retries_lost.len(), "messages were to be retried and never came again"),
            (Some(FIDELITY), self.phantoms.len(), "messages arrived that nobody published"),
        ])
    }

    /// The same of the messages from this number on, where what came before may be lost.
    pub(crate) fn since(mut self, first: u64) -> Self {
        let kinds = [
            &mut self.vanished,
            &mut self.confirmed_in_vain,
            &mut self.undelivered,
            &mut self.forgotten,
            &mut self.retries_lost,
            &mut self.refused_and_stored,
        ];
        kinds.into_iter().for_each(|kind| kind.retain(|n| *n >= first));
        self
    }

    /// The same of publishing alone.
    pub(crate) fn judge_store(&self) -> Result<(), Wrong> {
        let vanished = "the broker does not have messages whose publish was answered with success long before";
        self.first(&[
            (None, self.vanished.len(), vanished),
            (None, self.refused_and_stored.len(), "messages that were refused for good are stored all the same"),
            (
                Some(LOST_CONFIRMS),
                self.confirmed_in_vain.len(),
                "publishes were answered with success and never stored",
            ),
        ])
    }

    fn first(&self, kinds: &[(Option<&'static str>, usize, &str)]) -> Result<(), Wrong> {
        let Some((about, count, what)) = kinds.iter().find(|(_, count, _)| *count > 0) else { return Ok(()) };
        let text = format!("{count}: {what}; {self}");
        Err(about.map_or_else(|| Wrong::new(text.clone()), |check| Wrong::of(check, text.clone())))
    }
}

/// Draws the account. `copies`: how often the broker stores each message, where somebody has looked.
pub(super) fn draw(run: &str, books: &Books, copies: Option<&BTreeMap<u64, u32>>) -> Account {
    let faults = books.faults.iter().map(|fault| (fault.what.clone(), fault.in_flight)).collect();
    let mut account = Account {
        run: run.to_owned(),
        faults,
        mangled: books.mangled,
        phantoms: books.phantoms.clone(),
        ..Account::default()
    };
    for (entry, n) in books.entries.iter().zip(0..).filter(|(entry, _)| entry.tries > 0) {
        account.count(entry);
        let stored = copies.map(|copies| copies.get(&n).copied().unwrap_or(0));
        account.place(n, entry, stored, &books.faults);
        account.follow(n, entry);
    }
    account
}

impl Account {
    fn count(&mut self, entry: &Entry) {
        self.sent += 1;
        self.confirmed += u64::from(entry.confirmed.is_some());
        self.unknown += u64::from(entry.unknown > 0);
        self.delivered += u64::from(entry.deliveries > 0);
        self.acked += u64::from(entry.acks > 0);
        self.duplicates += u64::from(entry.deliveries.saturating_sub(1));
        self.acked_again += u64::from(entry.acks.saturating_sub(1));
    }

    fn place(&mut self, n: u64, entry: &Entry, stored: Option<u32>, faults: &[Fault]) {
        if stored.is_some_and(|copies| copies > 1) {
            self.stored_twice.push(n);
        }
        // What was delivered was stored, whatever the broker shows by now.
        if entry.deliveries == 0 {
            let shaded = entry.confirmed_near(faults, SHADE_BEFORE, SHADE_AFTER);
            match (stored, entry.confirmed) {
                (None | Some(0), Some(_)) if shaded => self.confirmed_in_vain.push(n),
                (Some(0), Some(_)) => self.vanished.push(n),
                (Some(1..), _) | (None, Some(_)) => self.undelivered.push(n),
                (None | Some(0), None) => {}
            }
        }
        let refused = entry.refused > 0 && entry.refused == entry.tries;
        if refused && (stored.is_some_and(|copies| copies > 0) || entry.deliveries > 0) {
            self.refused_and_stored.push(n);
        }
    }

    fn follow(&mut self, n: u64, entry: &Entry) {
        match entry.state {
            State::Open if entry.acks == 0 => self.forgotten.push(n),
            State::Retried => self.retries_lost.push(n),
            State::Undelivered | State::Open | State::Doubtful | State::Acked => {}
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, sent, confirmed, unknown, delivered, acked, duplicates, .. } = self;
        write!(f, "run {run}: {sent} sent, {confirmed} confirmed, {unknown} with an unknown outcome at some try, ")?;
        write!(f, "{delivered} delivered, {acked} acknowledged, {duplicates} deliveries more than once")?;
        list(f, "confirmed and not in the broker", &self.vanished)?;
        list(f, "confirmed about when a fault struck and not in the broker", &self.confirmed_in_vain)?;
        list(f, "stored and never delivered", &self.undelivered)?;
        list(f, "delivered, left unsettled and never delivered again", &self.forgotten)?;
        list(f, "to be retried and never delivered again", &self.retries_lost)?;
        list(f, "refused for good and stored all the same", &self.refused_and_stored)?;
        list(f, "never published and delivered", &self.phantoms)?;
        list(f, "stored more than once", &self.stored_twice)?;
        if self.mangled > 0 {
            write!(f, "; {} deliveries with changed bytes", self.mangled)?;
        }
        for (what, in_flight) in self.faults.iter().take(SHOWN_MAX) {
            write!(f, "; fault {what}: {in_flight} in flight")?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, which: &[impl fmt::Debug]) -> fmt::Result {
    if which.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = which.iter().take(SHOWN_MAX).collect();
    write!(f, "; {what}: {} ({shown:?}{})", which.len(), if which.len() > SHOWN_MAX { " ..." } else { "" })
}
