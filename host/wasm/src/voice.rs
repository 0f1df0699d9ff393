//! What one instance of an adapter says of itself, and whether anybody outside hears it: only the one that serves speaks
//! for the broker. Called by the worker and the supervisor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::BrokerState;

/// How long an adapter that has opened may take to say how it stands. It has said so when it opened, as a rule.
const FIRST_WORD_WAIT: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Voice {
    /// The resource's name.
    pub(crate) broker: String,
    own: watch::Sender<BrokerState>,
    outside: Arc<watch::Sender<BrokerState>>,
    heard: AtomicBool,
}

impl Voice {
    pub(crate) fn new(broker: &str, outside: Arc<watch::Sender<BrokerState>>, heard: bool) -> Self {
        let own = watch::Sender::new(BrokerState::Starting);
        Self { broker: broker.to_owned(), own, outside, heard: AtomicBool::new(heard) }
    }

    pub(crate) fn tell(&self, state: BrokerState) {
        self.own.send_replace(state.clone());
        if self.heard.load(Ordering::SeqCst) {
            self.outside.send_replace(state);
        }
    }

    /// Returns once it has said how it stands: whoever was told "ready" before would start over a broker that refuses. One
    /// that has opened and says nothing is ready.
    pub(crate) async fn first_word(&self) {
        let mut own = self.own.subscribe();
        let spoken = own.wait_for(|state| *state != BrokerState::Starting);
        if tokio::time::timeout(FIRST_WORD_WAIT, spoken).await.is_err() {
            self.tell(BrokerState::Ready);
        }
    }

    /// It speaks for the broker from now on.
    pub(crate) fn raise(&self) {
        self.heard.store(true, Ordering::SeqCst);
        self.outside.send_replace(self.own.borrow().clone());
    }

    /// It does not any more.
    pub(crate) fn mute(&self) {
        self.heard.store(false, Ordering::SeqCst);
    }

    /// Returns when it has said that it serves.
    pub(crate) async fn ready(&self) {
        // The sender is ours, so it is there.
        self.own.subscribe().wait_for(|state| *state == BrokerState::Ready).await.ok();
    }

    /// What it said last.
    pub(crate) fn last(&self) -> BrokerState {
        self.own.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_that_serves_is_heard() {
        let (outside, heard) = watch::channel(BrokerState::Starting);
        let outside = Arc::new(outside);
        let (old, new) = (Voice::new("bus", Arc::clone(&outside), true), Voice::new("bus", outside, false));
        let hears = |state: BrokerState| assert_eq!(*heard.borrow(), state);
        old.tell(BrokerState::Ready);
        new.tell(BrokerState::Connecting("it probes".to_owned()));
        hears(BrokerState::Ready);
        assert_eq!(new.last(), BrokerState::Connecting("it probes".to_owned()));
        new.tell(BrokerState::Ready);
        old.mute();
        new.raise();
        old.tell(BrokerState::Connecting("it drains".to_owned()));
        hears(BrokerState::Ready);
        new.tell(BrokerState::Connecting("it serves".to_owned()));
        hears(BrokerState::Connecting("it serves".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn its_first_word_counts_and_silence_is_ready() {
        let (outside, heard) = watch::channel(BrokerState::Starting);
        let outside = Arc::new(outside);
        let refused = BrokerState::Connecting("refused".to_owned());
        let slow = Voice::new("bus", Arc::clone(&outside), true);
        let says = async {
            tokio::time::sleep(FIRST_WORD_WAIT / 2).await;
            slow.tell(refused.clone());
        };
        tokio::join!(slow.first_word(), says);
        assert_eq!((&*heard.borrow(), slow.last()), (&refused, refused.clone()));
        let silent = Voice::new("bus", outside, true);
        silent.first_word().await;
        assert_eq!(silent.last(), BrokerState::Ready);
    }
}
