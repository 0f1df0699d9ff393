//! Wakes all who wait, each time it is rung. Who waits looks again whether what it waited for is there.

use std::cell::RefCell;

use futures::channel::oneshot;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Bell(RefCell<Vec<oneshot::Sender<()>>>);

impl Bell {
    /// Wakes all.
    pub(crate) fn ring(&self) {
        self.0.take();
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        let mut waiters = self.0.borrow_mut();
        waiters.retain(|waiter| !waiter.is_canceled());
        waiters.len()
    }

    /// Returns when it is rung.
    pub(crate) async fn wait(&self) {
        let (sender, rung) = oneshot::channel();
        // Those who gave up make room.
        self.waiting();
        self.0.borrow_mut().push(sender);
        // What comes is that the sender was dropped.
        rung.await.ok();
    }
}
