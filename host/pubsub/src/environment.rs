//! The clock and the randomness of the data plane, handed in so that a seed decides a whole run.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Local, TimeDelta, Utc};
use tokio::time::Instant;

/// The wall clock. (Waits use tokio's clock, which a test can pause.)
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's.
    System,
    /// Starts at a given moment and follows tokio's clock, paused or not.
    Simulated(DateTime<Utc>, Instant),
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Simulated(start, at) => *start + TimeDelta::from_std(at.elapsed()).unwrap_or_default(),
        }
    }

    /// Now as RFC 3339 with seconds, in the local zone, as Dapr writes `time`.
    #[must_use]
    pub fn timestamp(&self) -> String {
        self.now().with_timezone(&Local).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }
}

/// A source of random numbers that a seed decides.
#[derive(Debug, Clone)]
pub struct Random(Arc<Mutex<fastrand::Rng>>);

impl Random {
    /// Seeded by the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// The same numbers for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// 128 random bits.
    #[must_use]
    pub fn bits(&self) -> u128 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).u128(..)
    }

    /// A number from 0 up to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }

    /// A version 4 UUID (RFC 9562, section 5.4).
    #[must_use]
    pub fn uuid(&self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.bits().to_ne_bytes()).into_uuid()
    }
}

/// What the data plane may not make up itself.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The wall clock.
    pub clock: Clock,
    /// The randomness.
    pub random: Random,
}

impl Environment {
    /// The machine's own.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::System, random: Random::system() }
    }
}
