//! How the cluster stands, told to the host: ready while at least one broker is connected.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use whimbrel_sdk::{Status, StatusSink, log};

/// Brokers whose last trouble is remembered, at most.
const TROUBLES_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Health {
    status: StatusSink,
    /// The cluster was reached once; before that, one broker that answers is no news.
    begun: Cell<bool>,
    ready: Cell<bool>,
    /// What was told last.
    told: RefCell<Option<String>>,
    /// What was logged last about each broker: one that stays away must not fill the log.
    troubles: RefCell<BTreeMap<String, String>>,
}

impl Health {
    pub(crate) fn new(status: StatusSink) -> Self {
        Self {
            status,
            begun: Cell::new(false),
            ready: Cell::new(false),
            told: RefCell::default(),
            troubles: RefCell::default(),
        }
    }

    /// One broker could not be reached, or was lost. Logged when it is news.
    pub(crate) fn trouble(&self, address: &str, why: &str) {
        let mut troubles = self.troubles.borrow_mut();
        if troubles.get(address).is_some_and(|known| known == why) || why.is_empty() {
            return;
        }
        if troubles.len() < TROUBLES_MAX {
            troubles.insert(address.to_owned(), why.to_owned());
        }
        log::warn(&format!("connection to Kafka: {why}"));
    }

    /// It is well again.
    pub(crate) fn well(&self, address: &str) {
        self.troubles.borrow_mut().remove(address);
    }

    /// No broker is connected. Empty: nobody was asked yet.
    pub(crate) fn is_down(&self, why: &str) {
        if !self.ready.replace(false) && self.told.borrow().as_deref() == Some(why) {
            return;
        }
        *self.told.borrow_mut() = Some(why.to_owned());
        self.status.tell(Status::Connecting(why.to_owned()));
    }

    /// The cluster serves, for the first time.
    pub(crate) fn begin(&self) {
        self.begun.set(true);
        self.is_up();
    }

    /// A broker serves.
    pub(crate) fn is_up(&self) {
        if self.begun.get() && !self.ready.replace(true) {
            *self.told.borrow_mut() = None;
            self.status.tell(Status::Ready);
        }
    }

    /// Whatever else is to be told.
    pub(crate) fn tell(&self, status: Status) {
        if let Status::DataLoss(what) = &status {
            log::warn(what);
        }
        self.status.tell(status);
    }
}
