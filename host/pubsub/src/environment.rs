//! The clock and the randomness of the data plane, handed in so that a seed decides a whole run.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Local, TimeDelta, Utc};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::spans::Tracer;

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
pub struct Random {
    numbers: Arc<Mutex<fastrand::Rng>>,
    /// Mixed into every 128 bits. The generator has 64 bits of state, too few to keep the ids of many processes apart.
    pad: u128,
}

impl Random {
    /// Seeded by the operating system.
    #[must_use]
    pub fn system() -> Self {
        let half = || u128::from(RandomState::new().hash_one(0));
        Self { numbers: Arc::new(Mutex::new(fastrand::Rng::new())), pad: half() << 64 | half() }
    }

    /// The same numbers for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { numbers: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))), pad: 0 }
    }

    /// 128 random bits.
    #[must_use]
    pub fn bits(&self) -> u128 {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).u128(..) ^ self.pad
    }

    /// A number from 0 up to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).f64()
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
    /// What is counted.
    pub metrics: Metrics,
    /// Which spans there are.
    pub tracer: Tracer,
}

impl Environment {
    /// The machine's own.
    #[must_use]
    pub fn system() -> Self {
        let (metrics, tracer) = (Metrics::default(), Tracer::default());
        Self { clock: Clock::System, random: Random::system(), metrics, tracer }
    }
}
