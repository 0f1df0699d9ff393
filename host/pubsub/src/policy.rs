//! The attempts that a policy allows around one operation, and the waits between them (pubsub-behaviour, section 10.3).
//! Called by the spines, which make the attempts.

mod breaker;
mod policed;

use std::time::Duration;

use tokio::time::Instant;
use whimbrel_resources::{Backoff, Policy};

use crate::environment::Random;
use crate::error::{BrokerError, HandlerError};

pub(crate) use breaker::{Breaker, BreakerState, Guard, Refused};
pub(crate) use policed::Policed;

/// The first wait of an exponential policy.
const EXPONENTIAL_WAIT_MIN: Duration = Duration::from_millis(500);

/// By what the waits of an exponential policy grow.
const EXPONENTIAL_FACTOR: f64 = 1.5;

/// How far a wait may be off, either way, as a part of it.
const SPREAD: f64 = 0.5;

/// How long an exponential policy goes on in all, also when its retries are not limited.
const EXPONENTIAL_TOTAL_MAX: Duration = Duration::from_secs(15 * 60);

/// Which list of codes a policy matches a failed publish against: that of the door it came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A publish over HTTP, `httpStatusCodes`.
    Http,
    /// A dead letter, `gRPCStatusCodes`.
    Grpc,
}

/// A failure as a policy matches it. What has none is always retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(Family, u16);

impl Code {
    /// What a failed attempt to deliver is matched by.
    pub(crate) fn of_delivery(error: &HandlerError) -> Option<Self> {
        match error {
            HandlerError::Status(status) => Some(Self(Family::Http, *status)),
            _ => None,
        }
    }

    /// What a failed publish is matched by: Unavailable or ResourceExhausted of gRPC, as Dapr maps them to HTTP. Failures
    /// that no retry mends have none here, for they are never retried.
    pub(crate) fn of_publish(error: &BrokerError, family: Family) -> Option<Self> {
        let (http, grpc) = match error {
            BrokerError::Transient(_) => (503, 14),
            BrokerError::Throttled { .. } => (429, 8),
            _ => return None,
        };
        Some(Self(family, if family == Family::Http { http } else { grpc }))
    }
}

/// How many attempts a policy allows. None: it has no number, because it does not retry or does so without an end.
pub(crate) fn budget(policy: &Policy) -> Option<u32> {
    policy.retry.as_ref()?.max_retries.map(|retries| retries.saturating_add(1))
}

/// The attempts of one operation.
#[derive(Debug)]
pub struct Attempts<'a> {
    policy: &'a Policy,
    random: &'a Random,
    started: Instant,
    number: u32,
    interval: Duration,
    /// Decided when the attempt begins, so that whether it is the last is known and stays true.
    wait: Option<Duration>,
}

impl<'a> Attempts<'a> {
    /// Stands at the first attempt.
    #[must_use]
    pub fn new(policy: &'a Policy, random: &'a Random) -> Self {
        Self::from(policy, random, 1)
    }

    /// Stands at a later one: those before it are of the policy's number, though not of its time.
    pub(crate) fn from(policy: &'a Policy, random: &'a Random, number: u32) -> Self {
        let interval = EXPONENTIAL_WAIT_MIN;
        let mut attempts = Self { policy, random, started: Instant::now(), number, interval, wait: None };
        attempts.wait = attempts.next_wait(Duration::ZERO);
        attempts
    }

    /// The attempt that is being made, from 1.
    #[cfg(test)]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether none follows it.
    pub(crate) fn is_last(&self) -> bool {
        self.wait.is_none()
    }

    /// Whether the policy retries what failed with this code.
    pub(crate) fn retries(&self, code: Option<Code>) -> bool {
        let Some(matching) = self.policy.retry.as_ref().map(|retry| &retry.matching) else { return false };
        code.is_none_or(|Code(family, code)| {
            let listed = if family == Family::Http { &matching.http } else { &matching.grpc };
            listed.as_ref().is_none_or(|listed| listed.contains(code))
        })
    }

    /// Goes on to the next attempt, which is to begin after this wait. `None`: that was the last.
    pub fn advance(&mut self) -> Option<Duration> {
        let wait = self.wait?;
        self.number = self.number.saturating_add(1);
        self.wait = self.next_wait(wait);
        Some(wait)
    }

    /// The wait after the attempt that begins in so long.
    fn next_wait(&mut self, begins_in: Duration) -> Option<Duration> {
        let retry = self.policy.retry.as_ref()?;
        if retry.max_retries.is_some_and(|retries| self.number > retries) {
            return None;
        }
        match retry.backoff {
            Backoff::Constant(wait) => Some(wait),
            Backoff::Exponential(wait_max) => {
                let wait = spread(self.interval.min(wait_max), self.random).min(wait_max);
                self.interval = self.interval.mul_f64(EXPONENTIAL_FACTOR).min(wait_max);
                (self.started.elapsed() + begins_in + wait <= EXPONENTIAL_TOTAL_MAX).then_some(wait)
            }
        }
    }
}

/// Waits that double from one bound to another, each somewhere between a half and the whole of it.
#[derive(Debug)]
pub(crate) struct Doubling {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Doubling {
    /// Begins at `min`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next wait.
    pub(crate) fn wait(&mut self, random: &Random) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait.mul_f64(0.5 + random.fraction() / 2.0)
    }

    /// Begins again.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

fn spread(wait: Duration, random: &Random) -> Duration {
    wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * random.fraction())
}

#[cfg(test)]
mod tests;
