//! A place for each connection there may be: made when it is first needed, and again when it is lost.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures::lock::Mutex;
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{Failure, timer};

use super::Lane;
use super::dial::{Address, dial};
use super::link::Link;
use crate::config::Settings;
use crate::failure::text;
use crate::health::Health;
use whimbrel_sdk::signal::Signal;

/// When a connection may be tried again.
#[derive(Debug, Default)]
struct Gate {
    backoff: Backoff,
    not_before: Option<Instant>,
    /// When the last one was made.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    link: RefCell<Option<Rc<Link>>>,
    /// Held by who connects; the others wait for that.
    gate: Mutex<Gate>,
}

/// See the module.
pub(super) struct Slots {
    settings: Rc<Settings>,
    slots: RefCell<HashMap<(Address, Lane), Rc<Slot>>>,
    health: Rc<Health>,
    /// Raised when a main connection is lost.
    pub(super) lost: Rc<Signal>,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Slots {
    pub(super) fn new(settings: Rc<Settings>, health: Rc<Health>) -> Self {
        Self { settings, slots: RefCell::default(), health, lost: Rc::default() }
    }

    /// A main connection that is there already.
    pub(super) fn any_open(&self) -> Option<Rc<Link>> {
        let slots = self.slots.borrow();
        let main = slots.iter().filter(|((_, lane), _)| *lane == Lane::Main);
        main.filter_map(|(_, slot)| slot.link.borrow().clone()).find(|link| link.is_open())
    }

    /// A connection that is there already.
    pub(super) fn open(&self, address: &Address, lane: Lane) -> Option<Rc<Link>> {
        let key = (address.clone(), lane);
        self.slots.borrow().get(&key).and_then(|slot| slot.open())
    }

    /// When a main connection to this address may be tried. `None`: now.
    pub(super) fn not_before(&self, address: &Address) -> Option<Instant> {
        let slots = self.slots.borrow();
        let slot = slots.get(&(address.clone(), Lane::Main))?;
        slot.gate.try_lock().and_then(|gate| gate.not_before)
    }

    /// The connection for a use of a broker. Tries once to make it, after the wait that earlier failures ask for.
    ///
    /// # Errors
    /// Why it was not made; whoever still has patience comes again.
    pub(super) async fn link(&self, address: &Address, lane: Lane, patience: Duration) -> Result<Rc<Link>, Failure> {
        let slot = Rc::clone(self.slots.borrow_mut().entry((address.clone(), lane)).or_default());
        if let Some(link) = slot.open() {
            return Ok(link);
        }
        let mut gate = slot.gate.lock().await;
        // Somebody else may have made it meanwhile.
        if let Some(link) = slot.open() {
            return Ok(link);
        }
        if let Some(not_before) = gate.not_before {
            timer::sleep(not_before.saturating_duration_since(timer::now())).await;
        }
        if let Some(since) = gate.since {
            gate.backoff.lived(timer::now().saturating_duration_since(since));
            if slot.has_answered() {
                gate.backoff.served();
            }
        }
        // Also if this try is given up: the next one waits.
        gate.not_before = Some(timer::now() + gate.backoff.next_wait());
        let dialled = dial(&self.settings, address, patience.min(self.settings.dial_wait)).await;
        let label = format!("{}:{}", address.0, address.1);
        match dialled {
            Ok(dialled) => {
                gate.since = Some(timer::now());
                let client_id = StrBytes::from_string(self.settings.client_id.clone());
                let link = Link::start(dialled, client_id, self.when_lost(label.clone(), lane));
                slot.link.replace(Some(Rc::clone(&link)));
                self.health.well(&label);
                if lane == Lane::Main {
                    self.health.is_up();
                }
                Ok(link)
            }
            Err(failure) => {
                gate.since = None;
                self.health.trouble(&label, text(&failure));
                if self.any_open().is_none() {
                    self.health.is_down(text(&failure));
                }
                Err(failure)
            }
        }
    }

    fn when_lost(&self, label: String, lane: Lane) -> impl FnOnce(&str) + 'static {
        let (health, lost) = (Rc::clone(&self.health), Rc::clone(&self.lost));
        move |why: &str| {
            if lane == Lane::Main && !why.is_empty() {
                health.trouble(&label, &format!("{label}: {why}"));
                lost.raise();
            }
        }
    }

    /// Ends the connections of one use.
    pub(super) fn end(&self, lane: Lane) {
        self.slots.borrow_mut().retain(|(_, other), slot| {
            if *other != lane {
                return true;
            }
            if let Some(link) = slot.link.take() {
                link.end("");
            }
            false
        });
    }

    /// Ends all connections.
    pub(super) fn close(&self) {
        for slot in self.slots.borrow().values() {
            if let Some(link) = slot.link.take() {
                link.end("");
            }
        }
    }
}

impl Slot {
    fn open(&self) -> Option<Rc<Link>> {
        self.link.borrow().clone().filter(|link| link.is_open())
    }

    /// Whether the last connection answered anything before it was lost.
    fn has_answered(&self) -> bool {
        self.link.borrow().as_ref().is_some_and(|link| link.has_answered())
    }
}
