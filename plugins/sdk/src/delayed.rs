//! Things that wait until their time has come: messages to be tried again, mostly. One task takes them out.
//!
//! Absent on purpose: a bound. What waits here is held by a subscription, and bounded by what that may hold.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::signal::Signal;
use crate::timer;

/// The longest wait that is kept exactly; a longer one is cut to it.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a wait that begins now is over. No wait is too long for the clock.
#[must_use]
pub fn after(wait: Duration) -> Instant {
    timer::now() + wait.min(WAIT_MAX)
}

/// See the module.
#[derive(Debug)]
pub struct Delayed<T> {
    /// By when they are due, and in the order they came.
    waiting: RefCell<BTreeMap<(Instant, u64), T>>,
    came: Cell<u64>,
    changed: Signal,
    closed: Cell<bool>,
}

impl<T> Delayed<T> {
    /// Keeps something until then.
    pub fn add(&self, due: Instant, what: T) {
        let number = self.came.replace(self.came.get() + 1);
        let is_first = self.first().is_none_or(|first| due < first);
        self.waiting.borrow_mut().insert((due, number), what);
        if is_first {
            self.changed.raise();
        }
    }

    /// Takes out what need not wait any longer for its time, each with when it would have been due.
    pub fn take_those(&self, is_one: impl Fn(&T) -> bool) -> Vec<(Instant, T)> {
        let (taken, left) = self.waiting.take().into_iter().partition::<BTreeMap<_, _>, _>(|(_, what)| is_one(what));
        self.waiting.replace(left);
        taken.into_iter().map(|((due, _), what)| (due, what)).collect()
    }

    /// Waits until something is due, and takes out all that is. `None` once it is closed.
    pub async fn due(&self) -> Option<Vec<T>> {
        while !self.closed.get() {
            let now = timer::now();
            match self.first() {
                Some(first) if first <= now => return Some(self.take_due(now)),
                // Changed or not: look again.
                Some(first) => {
                    timer::timeout(first.saturating_duration_since(now), self.changed.wait()).await;
                }
                None => self.changed.wait().await,
            }
        }
        None
    }

    /// Ends [`due`](Self::due).
    pub fn close(&self) {
        self.closed.set(true);
        self.changed.raise();
    }

    fn first(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((due, _), _)| *due)
    }

    fn take_due(&self, now: Instant) -> Vec<T> {
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(now, u64::MAX));
        std::mem::replace(&mut *waiting, later).into_values().collect()
    }
}

impl<T> Default for Delayed<T> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), came: Cell::new(0), changed: Signal::default(), closed: Cell::new(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn check(case: impl AsyncFnOnce(Delayed<&'static str>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let local = tokio::task::LocalSet::new();
        runtime.expect("a runtime").block_on(local.run_until(case(Delayed::default())));
    }

    #[test]
    fn the_earliest_first_and_those_of_one_time_in_their_order() {
        check(async |delayed| {
            for (millis, what) in [(20, "c"), (10, "a"), (10, "b"), (5000, "d")] {
                delayed.add(after(Duration::from_millis(millis)), what);
            }
            assert_eq!(delayed.due().await, Some(vec!["a", "b"]));
            assert_eq!(delayed.due().await, Some(vec!["c"]));
            assert_eq!(delayed.due().now_or_never(), None, "its time has not come");
        });
    }

    #[test]
    fn a_shorter_wait_that_comes_later_is_not_overslept() {
        check(async |delayed| {
            delayed.add(after(Duration::MAX), "late");
            let begun = timer::now();
            let add = async {
                timer::sleep(Duration::from_secs(1)).await;
                delayed.add(after(Duration::from_secs(1)), "soon");
            };
            let (due, ()) = futures::join!(delayed.due(), add);
            assert_eq!((due, begun.elapsed().as_secs() < 5), (Some(vec!["soon"]), true));
        });
    }

    #[test]
    fn what_is_taken_out_does_not_come_and_closing_ends_it() {
        check(async |delayed| {
            let due = after(Duration::from_secs(1));
            delayed.add(due, "mine");
            delayed.add(due, "other");
            assert_eq!(delayed.take_those(|what| *what == "mine"), [(due, "mine")]);
            assert_eq!(delayed.due().await, Some(vec!["other"]));
            let (ended, ()) = futures::join!(delayed.due(), async { delayed.close() });
            assert_eq!(ended, None);
        });
    }
}
