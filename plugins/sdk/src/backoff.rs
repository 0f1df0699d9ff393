//! The wait between two tries to connect: it grows, it is jittered, and it never gives up.

use std::time::Duration;

/// The first wait is at most this.
pub const WAIT_MIN: Duration = Duration::from_millis(100);

/// No wait is longer than this.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// No wait after a connection that was of use is longer than this.
const SERVED_WAIT_MAX: Duration = Duration::from_millis(400);

/// Full jitter: each wait is a random part of a ceiling that doubles. Instances that lost one broker together thus do
/// not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: WAIT_MIN }
    }
}

impl Backoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = (self.ceiling * 2).min(WAIT_MAX);
        // A tenth at least: a lucky number must not make a hot loop.
        wait.max(WAIT_MIN / 10)
    }

    /// A connection has lived so long. Longer than the wait that might follow it now, and it counts as a success; one that is
    /// made and lost at once does not. So no more time is spent waiting than being connected, and nothing runs hot.
    pub fn lived(&mut self, time: Duration) {
        if time > self.ceiling {
            self.reset();
        }
    }

    /// A connection was of use before it was lost, however short that was: cuts in a row must not keep everybody waiting for
    /// seconds. Whoever answers once and hangs up is not asked in a hot loop all the same.
    pub fn served(&mut self) {
        self.ceiling = self.ceiling.min(SERVED_WAIT_MAX);
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.ceiling = WAIT_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_never_vanish() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..50).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= WAIT_MIN);
        assert!(waits.iter().all(|wait| (WAIT_MIN / 10..=WAIT_MAX).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > WAIT_MAX / 10), "fifty waits stayed small: {waits:?}");
        backoff.reset();
        assert!(backoff.next_wait() <= WAIT_MIN);
    }

    #[test]
    fn what_was_of_use_is_not_waited_for_long() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..50 {
            backoff.served();
            waits.push(backoff.next_wait());
        }
        assert!(waits.iter().all(|wait| *wait <= SERVED_WAIT_MAX), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait > SERVED_WAIT_MAX / 2), "fifty waits stayed small: {waits:?}");
    }

    #[test]
    fn what_lives_longer_than_the_wait_is_a_success() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.lived(WAIT_MIN / 2);
            backoff.next_wait();
        }
        assert_eq!(backoff.ceiling, WAIT_MAX);
        backoff.lived(WAIT_MAX);
        assert_eq!(backoff.ceiling, WAIT_MAX);
        backoff.lived(WAIT_MAX + WAIT_MIN);
        for _ in 0..20 {
            assert!(backoff.next_wait() <= WAIT_MIN);
            backoff.lived(WAIT_MIN * 3);
        }
    }
}
