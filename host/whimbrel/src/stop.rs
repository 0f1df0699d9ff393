//! The two signals that stop the host: the first drains, the second leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::Exit;

/// Cancels the token at the first SIGTERM or SIGINT. Returns at the second, for the process to end at once.
pub(crate) async fn watch(stop: CancellationToken) -> Exit {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!("signals cannot be watched: {error}");
            return Exit::Failed;
        }
    };
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let first = next().await;
    tracing::info!(signal = first, "stopping: no more is fetched, what is in flight finishes");
    stop.cancel();
    let second = next().await;
    tracing::warn!(signal = second, "stopping at once");
    Exit::Failed
}
