//! Which tokens are out, and how much of the credit is used.

use std::collections::HashMap;

/// Unsettled deliveries of one subscription, at most: what an adapter can hold of them.
pub(crate) const HELD_MAX: usize = 100_000;

/// Where to acknowledge a delivery.
pub(crate) type AckSubject = Box<str>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    held: HashMap<u64, AckSubject>,
    /// Settlements that the broker has not confirmed yet.
    settling: usize,
    /// Messages that come again later.
    waiting: usize,
}

impl Ledger {
    /// How much of the credit is used.
    pub(crate) fn used(&self) -> usize {
        self.held.len() + self.settling + self.waiting
    }

    /// One more is out.
    pub(crate) fn hand(&mut self, token: u64, ack: AckSubject) {
        self.held.insert(token, ack);
    }

    /// Takes a token back, which keeps its credit until [`settled`](Self::settled). None: it means nothing, or not any more.
    pub(crate) fn settle(&mut self, token: u64) -> Option<AckSubject> {
        let ack = self.held.remove(&token)?;
        self.settling += 1;
        Some(ack)
    }

    /// So many are done; `waits` of them come again later, and keep their credit until [`waited`](Self::waited).
    pub(crate) fn settled(&mut self, count: usize, waits: usize) {
        self.settling = self.settling.saturating_sub(count);
        self.waiting += waits;
    }

    /// The wait of one is over.
    pub(crate) fn waited(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// All that are out, for their leases.
    pub(crate) fn held(&self) -> impl Iterator<Item = &AckSubject> {
        self.held.values()
    }

    /// None that is out means anything any more.
    pub(crate) fn forget_held(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn credit_is_used_until_the_broker_knows() {
        let mut ledger = Ledger::default();
        (1..=3).for_each(|token| ledger.hand(token, "a".into()));
        assert!(ledger.settle(1).is_some() && ledger.settle(1).is_none() && ledger.settle(9).is_none());
        assert!(ledger.settle(2).is_some());
        assert_eq!((ledger.used(), ledger.held().count()), (3, 1));
        ledger.settled(2, 1);
        assert_eq!(ledger.used(), 2, "one waits");
        ledger.forget_held();
        assert!(ledger.settle(3).is_none());
        ledger.waited();
        assert_eq!(ledger.used(), 0);
    }
}
