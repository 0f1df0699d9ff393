//! The circuit breaker of one component: counts attempts, and refuses them for a while when too many fail
//! (pubsub-behaviour, section 10.3). Publishing and delivering share it; each asks with the template of its own direction.
//!
//! Absent on purpose: a timer. What is due happens when somebody asks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_resources::{CircuitBreaker, Counts};

/// Lives as long as its component.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

/// A breaker with the template it is asked with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard<'a> {
    /// Whose counts.
    pub(crate) breaker: &'a Breaker,
    /// The component, for the log.
    pub(crate) name: &'a str,
    /// When it opens and closes.
    pub(crate) template: &'a CircuitBreaker,
}

/// Leave to make one attempt. Dropped without an end, the attempt counts as never made: nobody knows how it went.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    guard: Guard<'a>,
    generation: Option<u64>,
}

/// What it does with attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// They are made.
    Closed,
    /// Some are made to find out.
    HalfOpen,
    /// None is made.
    Open,
}

impl BreakerState {
    /// Dapr's word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Why there is no leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It is open, for so long yet.
    #[error("circuit breaker is open")]
    Open(Duration),
    /// As many attempts as may find out whether all is well are under way.
    #[error("too many requests")]
    Probed,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    counts: Counts,
    /// Grows with each change and each clearing: what began before does not count after.
    generation: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Attempts are made. The counts are cleared at a time; `None`: not yet known, or never.
    Closed { clears: Option<Instant> },
    /// The same, before anybody asked.
    #[default]
    New,
    /// None is made before this.
    Open { until: Instant },
    /// Some are made to find out.
    HalfOpen,
}

impl<'a> Guard<'a> {
    /// Asks for leave to make an attempt.
    ///
    /// # Errors
    /// It is refused; there is no use in a retry.
    pub(crate) fn enter(self) -> Result<Pass<'a>, Refused> {
        let generation = self.with(|state| {
            self.catch_up(state);
            match state.phase {
                Phase::Open { until } => return Err(Refused::Open(until - Instant::now())),
                Phase::HalfOpen if state.counts.requests >= self.template.max_requests => return Err(Refused::Probed),
                _ => {}
            }
            state.counts.requests = state.counts.requests.saturating_add(1);
            Ok(state.generation)
        })?;
        Ok(Pass { guard: self, generation: Some(generation) })
    }

    /// How it stands.
    pub(crate) fn state(self) -> BreakerState {
        self.with(|state| {
            self.catch_up(state);
            state.known()
        })
    }

    /// Does what is due by now.
    fn catch_up(self, state: &mut State) {
        let now = Instant::now();
        match state.phase {
            Phase::New => self.close(state),
            Phase::Closed { clears: Some(clears) } if clears <= now => self.close(state),
            Phase::Open { until } if until <= now => state.turn(Phase::HalfOpen),
            _ => {}
        }
    }

    fn close(self, state: &mut State) {
        state.turn(Phase::Closed { clears: self.template.interval.map(|interval| Instant::now() + interval) });
    }

    fn open(self, state: &mut State) {
        let wait = self.template.timeout;
        tracing::warn!(component = self.name, ?wait, "the circuit breaker opens");
        state.turn(Phase::Open { until: Instant::now() + wait });
    }

    fn succeeded(self, state: &mut State) {
        let counts = &mut state.counts;
        counts.total_successes = counts.total_successes.saturating_add(1);
        counts.consecutive_successes = counts.consecutive_successes.saturating_add(1);
        counts.consecutive_failures = 0;
        if state.phase == Phase::HalfOpen && counts.consecutive_successes >= self.template.max_requests {
            tracing::info!(component = self.name, "the circuit breaker closes");
            self.close(state);
        }
    }

    fn failed(self, state: &mut State) {
        let counts = &mut state.counts;
        counts.total_failures = counts.total_failures.saturating_add(1);
        counts.consecutive_failures = counts.consecutive_failures.saturating_add(1);
        counts.consecutive_successes = 0;
        if state.phase == Phase::HalfOpen || self.template.trip.is_met(counts) {
            self.open(state);
        }
    }

    fn with<T>(self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.breaker.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn known(&self) -> BreakerState {
        match self.phase {
            Phase::New | Phase::Closed { .. } => BreakerState::Closed,
            Phase::HalfOpen => BreakerState::HalfOpen,
            Phase::Open { .. } => BreakerState::Open,
        }
    }

    fn turn(&mut self, phase: Phase) {
        *self = Self { phase, counts: Counts::default(), generation: self.generation.wrapping_add(1) };
    }
}

impl Pass<'_> {
    /// The attempt was made. What it has turned the breaker to, if it has.
    pub(crate) fn end(mut self, succeeded: bool) -> Option<BreakerState> {
        self.give_up(|guard, state| if succeeded { guard.succeeded(state) } else { guard.failed(state) })
    }

    /// Counts once, and only if nothing has changed since.
    fn give_up(&mut self, count: impl FnOnce(Guard<'_>, &mut State)) -> Option<BreakerState> {
        let generation = self.generation.take()?;
        let guard = self.guard;
        guard.with(|state| {
            guard.catch_up(state);
            if state.generation != generation {
                return None;
            }
            let before = state.known();
            count(guard, state);
            Some(state.known()).filter(|now| *now != before)
        })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.give_up(|_, state| state.counts.requests = state.counts.requests.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
