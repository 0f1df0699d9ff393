//! How the connections stand, told to the host as one status: ready when all of them are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use whimbrel_sdk::{Lag, Status, StatusSink, log};

/// What the connections of one component have in common.
#[derive(Debug)]
pub(crate) struct Health {
    status: StatusSink,
    down: Cell<usize>,
    told: RefCell<String>,
}

/// How one connection stands.
#[derive(Debug)]
pub(crate) struct Standing {
    health: Rc<Health>,
    up: Cell<bool>,
}

impl Health {
    /// Tells into a sink.
    pub(crate) fn new(status: StatusSink) -> Rc<Self> {
        Rc::new(Self { status, down: Cell::new(0), told: RefCell::default() })
    }

    /// One more connection. It counts as up until it is said to be down.
    pub(crate) fn standing(self: &Rc<Self>) -> Standing {
        Standing { health: Rc::clone(self), up: Cell::new(true) }
    }

    /// Messages may be lost; nothing about the connection.
    pub(crate) fn data_loss(&self, what: String) {
        log::warn(&what);
        self.status.tell(Status::DataLoss(what));
    }

    /// How far a group is behind; nothing about the connection.
    pub(crate) fn lag(&self, lag: Lag) {
        self.status.tell(Status::Lag(lag));
    }

    fn ready(&self) {
        if self.down.get() == 0 {
            self.told.borrow_mut().clear();
            self.status.tell(Status::Ready);
        }
    }
}

impl Standing {
    /// It is being made, again. Empty: for the first time.
    pub(crate) fn is_down(&self, why: &str) {
        if self.up.replace(false) {
            self.health.down.set(self.health.down.get() + 1);
        } else if *self.health.told.borrow() == why {
            // Told and logged at an earlier try; a server that stays away must not fill the log.
            return;
        }
        if !why.is_empty() {
            log::warn(&format!("connection to Redis: {why}"));
        }
        why.clone_into(&mut self.health.told.borrow_mut());
        self.health.status.tell(Status::Connecting(why.to_owned()));
    }

    /// It serves, or is not needed any more.
    pub(crate) fn is_up(&self) {
        if !self.up.replace(true) {
            self.health.down.set(self.health.down.get() - 1);
            self.health.ready();
        }
    }
}
