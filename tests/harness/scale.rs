//! `WHIMBREL_TEST_SCALE`: multiplies counts and durations, never the set of checks. 1 in CI.

/// The count for this run. A smaller scale than 1 counts as 1: fewer would prove less than the issue asks.
pub(crate) fn scaled(count: u64) -> u64 {
    let scale =
        std::env::var("WHIMBREL_TEST_SCALE").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0).max(1.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts of a test are far below 2^52, and the scale is at least 1"
    )]
    let scaled = (count as f64 * scale) as u64;
    scaled
}
