//! How the connections of an adapter stand, told to the host as one status: ready when all of them are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::{Status, StatusSink, log};

/// What the connections of one component have in common.
#[derive(Debug)]
pub struct Health {
    /// What it is connected to, for the log.
    broker: &'static str,
    status: StatusSink,
    down: Cell<usize>,
    told: RefCell<String>,
}

/// How one connection stands.
#[derive(Debug)]
pub struct Standing {
    health: Rc<Health>,
    up: Cell<bool>,
}

impl Health {
    /// Tells into a sink. The log gets the broker's name.
    #[must_use]
    pub fn new(broker: &'static str, status: StatusSink) -> Rc<Self> {
        Rc::new(Self { broker, status, down: Cell::new(0), told: RefCell::default() })
    }

    /// One more connection. It counts as up until it is said to be down.
    #[must_use]
    pub fn standing(self: &Rc<Self>) -> Standing {
        Standing { health: Rc::clone(self), up: Cell::new(true) }
    }

    /// Messages may be lost; nothing about the connection.
    pub fn data_loss(&self, what: String) {
        log::warn(&what);
        self.status.tell(Status::DataLoss(what));
    }

    /// Any other news.
    pub fn tell(&self, status: Status) {
        self.status.tell(status);
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
    pub fn is_down(&self, why: &str) {
        if self.up.replace(false) {
            self.health.down.set(self.health.down.get() + 1);
        } else if *self.health.told.borrow() == why {
            // Told and logged at an earlier try; a server that stays away must not fill the log.
            return;
        }
        if !why.is_empty() {
            log::warn(&format!("connection to {}: {why}", self.health.broker));
        }
        why.clone_into(&mut self.health.told.borrow_mut());
        self.health.status.tell(Status::Connecting(why.to_owned()));
    }

    /// It serves, or is not needed any more.
    pub fn is_up(&self) {
        if !self.up.replace(true) {
            self.health.down.set(self.health.down.get() - 1);
            self.health.ready();
        }
    }
}
