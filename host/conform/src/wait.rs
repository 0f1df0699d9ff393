//! Waiting for a condition, never for a time to pass. Called by the checks, and by the tests outside.

use std::time::Duration;

use tokio::time::Instant;

/// How long anything that a healthy machine does at once may take before a test gives up on it.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long between two looks at a condition that cannot be waited on.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// It did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {bound:?} in vain for: {what}")]
pub struct Late {
    bound: Duration,
    what: String,
}

/// Waits until the probe has something, for at most [`WAIT_MAX`].
///
/// # Errors
/// `what` did not happen in time.
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> Result<T, Late> {
    until_within(WAIT_MAX, what, probe).await
}

/// Waits until the probe has something, for at most `bound`.
///
/// # Errors
/// `what` did not happen in time.
pub async fn until_within<T>(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Late> {
    let give_up = Instant::now() + bound;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() >= give_up {
            return Err(Late { bound, what: what.to_owned() });
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}
