//! `WHIMBREL_TEST_SCALE`: multiplies counts and durations, never the set of checks. 1 in CI. Called by the fault checks
//! and by the tests outside.

use std::time::Duration;

/// The environment variable.
const VARIABLE: &str = "WHIMBREL_TEST_SCALE";

/// The count for this run. A smaller scale than 1 counts as 1: fewer would prove less than was asked for.
#[must_use]
pub fn scaled(count: u64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts of a test are far below 2^52, and the scale is at least 1"
    )]
    let scaled = (count as f64 * scale()) as u64;
    scaled
}

/// The length of time for this run.
#[must_use]
pub fn scaled_time(time: Duration) -> Duration {
    time.mul_f64(scale())
}

/// At least 1, and at most a million, so that no time overflows.
fn scale() -> f64 {
    std::env::var(VARIABLE).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0).clamp(1.0, 1e6)
}
