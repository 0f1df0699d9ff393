//! Holds the reading of a connection while more was read than the host has taken: what is not read waits at the broker.

use std::cell::Cell;

use whimbrel_sdk::signal::Signal;

/// Bytes of messages that were read and not taken, at most, about. One message is read however large it is.
const UNTAKEN_MAX_BYTES: usize = 24 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    bytes: Cell<usize>,
    shut: Cell<bool>,
    opened: Signal,
}

impl Gate {
    /// So many bytes were read.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// So many were taken, or are not wanted any more.
    pub(crate) fn remove(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        if self.shut.get() && self.bytes.get() < UNTAKEN_MAX_BYTES {
            self.opened.raise();
        }
    }

    /// Whether reading is held.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// Returns when there is room. For one reader.
    pub(crate) async fn pass(&self) {
        while self.bytes.get() >= UNTAKEN_MAX_BYTES {
            self.shut.set(true);
            self.opened.wait().await;
        }
        self.shut.set(false);
    }
}
