//! A flag that one task raises and one other waits for. Raising it twice is raising it once.
//!
//! Absent on purpose: several waiters. Each loop owns the signal it waits for.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use futures::task::AtomicWaker;

/// See the module.
#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waker: AtomicWaker,
}

impl Signal {
    /// Wakes the waiter, now or when it comes.
    pub fn raise(&self) {
        self.raised.set(true);
        self.waker.wake();
    }

    /// Returns once the signal is raised, and lowers it.
    pub async fn wait(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if self.raised.take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.raised.get())
    }
}
