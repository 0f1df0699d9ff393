//! How one task tells another that there is something to do. Called by both modes.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A bell with one listener. Rung while nobody listens, it stays rung: no call is lost.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
    listener: Cell<Option<Waker>>,
}

impl Bell {
    /// Rings.
    pub(super) fn ring(&self) {
        if !self.rung.replace(true)
            && let Some(listener) = self.listener.take()
        {
            listener.wake();
        }
    }

    /// Waits until it rings, or rang since the last wait.
    pub(super) async fn heard(&self) {
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            self.listener.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung.get()).finish_non_exhaustive()
    }
}
