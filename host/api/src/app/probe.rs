//! Whether the app is well: how it is asked, and what its answers mean (pubsub-behaviour 6.9). Called by `App`, which sends
//! the requests.
//!
//! An app is ill until its first success, and again after so many failures in a row. (For Dapr a success in between does
//! not begin the row anew, so that one failure a day makes an app ill in the end.)

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The longest time between two probes, and so the longest that one may take.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How an app's health is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Path, with a query if need be. 2xx is the good answer.
    pub(crate) path: String,
    /// From the beginning of one probe to that of the next.
    pub(crate) interval: Duration,
    /// How long the app may take to answer.
    pub(crate) timeout: Duration,
    /// Failures in a row that make it ill.
    pub(crate) threshold: u32,
}

/// Why a probe cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The path is none.
    #[error("--app-health-check-path {0:?} is not a path such as /healthz")]
    Path(String),
    /// More than a day.
    #[error("--app-health-probe-interval must not exceed a day (86400)")]
    Interval,
    /// Probes would overlap.
    #[error("--app-health-probe-timeout ({timeout:?}) must not exceed --app-health-probe-interval ({interval:?})")]
    Timeout {
        /// What was asked for.
        timeout: Duration,
        /// What was asked for.
        interval: Duration,
    },
}

impl Probe {
    /// A probe of this path (a slash is put before it if there is none).
    ///
    /// # Errors
    /// A value is out of its bounds.
    pub fn new(path: &str, interval: Duration, timeout: Duration, threshold: u32) -> Result<Self, ProbeError> {
        let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if PathAndQuery::try_from(whole.as_str()).is_err() {
            return Err(ProbeError::Path(path.to_owned()));
        }
        if interval > INTERVAL_MAX {
            return Err(ProbeError::Interval);
        }
        if timeout > interval {
            return Err(ProbeError::Timeout { timeout, interval });
        }
        Ok(Self { path: whole, interval, timeout, threshold: threshold.max(1) })
    }

    /// Asks again and again, and keeps `well` up to date. Never returns.
    pub(crate) async fn watch<F>(&self, ask: impl Fn() -> F, well: &watch::Sender<bool>)
    where
        F: Future<Output = bool>,
    {
        let mut failures = 0;
        let mut ticks = interval(self.interval);
        // A host that stood still does not make up for it: that would be many failures at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answered = timeout(self.timeout, ask()).await.unwrap_or(false);
            failures = if answered { 0 } else { self.threshold.min(failures + 1) };
            if answered && turned(well, true) {
                tracing::info!("the app is well: its subscriptions begin");
            } else if failures == self.threshold && turned(well, false) {
                tracing::warn!(failures, "the app is ill: its subscriptions end until it is well again");
            }
        }
    }
}

/// Sets it, and says whether it was otherwise.
fn turned(well: &watch::Sender<bool>, now: bool) -> bool {
    well.send_if_modified(|well| std::mem::replace(well, now) != now)
}

#[cfg(test)]
mod tests;
