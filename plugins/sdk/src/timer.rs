//! Waiting without holding up anything else in the component.

use std::time::{Duration, Instant};

/// The time, on the clock that [`sleep`] goes by. In a component this is a call to the host: ask only where it matters.
#[must_use]
pub fn now() -> Instant {
    #[cfg(target_family = "wasm")]
    return Instant::now();
    #[cfg(not(target_family = "wasm"))]
    tokio::time::Instant::now().into_std()
}

/// Returns after at least this long.
pub async fn sleep(how_long: Duration) {
    #[cfg(target_family = "wasm")]
    {
        let nanos = u64::try_from(how_long.as_nanos()).unwrap_or(u64::MAX);
        crate::bindings::adapter::whimbrel::pubsub::timer::sleep(nanos).await;
    }
    #[cfg(not(target_family = "wasm"))]
    tokio::time::sleep(how_long).await;
}

/// What the future answers, or nothing once the time is over.
pub async fn timeout<T>(how_long: Duration, future: impl Future<Output = T>) -> Option<T> {
    futures::pin_mut!(future);
    let sleep = sleep(how_long);
    futures::pin_mut!(sleep);
    match futures::future::select(future, sleep).await {
        futures::future::Either::Left((value, _)) => Some(value),
        futures::future::Either::Right(_) => None,
    }
}
