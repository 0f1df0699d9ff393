//! The kit's waiting, with the errors of the tests. Called by everything here.

use std::time::Duration;

use anyhow::Result;
use whimbrel_conform::wait;

/// How long anything that happens at once on an idle machine may take: ours build and test at the same time. A larger bound
/// costs nothing where all is well.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits until the probe has something, for at most [`WAIT_MAX`].
///
/// # Errors
/// `what` did not happen in time.
pub(crate) async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    until_within(WAIT_MAX, what, probe).await
}

/// Waits until the probe has something, for at most `bound`.
///
/// # Errors
/// `what` did not happen in time.
pub(crate) async fn until_within<T>(bound: Duration, what: &str, probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    Ok(wait::until_within(bound, what, probe).await?)
}
