//! What all parts of one open connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Failure, Message, task};

use crate::config::Settings;
use crate::later::Later;
use crate::ledger::Held;
use crate::publish::Publisher;
use crate::retries::Retries;
use crate::subscription::{Sub, size};
use crate::topology::Plan;
use crate::wire::Wire;
use whimbrel_sdk::health::Health;

/// How long a request that is not a publish waits for a connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of a connection waits for the broker's last answers.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Subscriptions of one component: each has a channel, and RabbitMQ gives 2047 to a connection.
const SUBS_MAX: usize = 2000;

/// Bytes of messages that are kept to be handed over again, at most. Beyond that they come from the broker.
const KEPT_MAX_BYTES: usize = 32 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) settings: Rc<Settings>,
    pub(crate) health: Rc<Health>,
    pub(crate) publishing: Rc<Wire>,
    /// There is one while there are subscriptions.
    consuming: RefCell<Option<Rc<Wire>>>,
    consuming_name: String,
    pub(crate) publisher: Rc<Publisher>,
    pub(crate) retries: Retries,
    pub(crate) later: RefCell<Later>,
    /// Settlements that came too late to mean anything.
    pub(crate) stale: Cell<u64>,
    serial: Cell<u64>,
    kept_bytes: Cell<usize>,
    subs: RefCell<Vec<Rc<Sub>>>,
}

impl Hub {
    /// Nothing is subscribed yet.
    pub(crate) fn new(settings: Rc<Settings>, health: Rc<Health>, names: (String, String)) -> Rc<Self> {
        let publishing = Wire::new(Rc::clone(&settings), names.0);
        let publisher = Publisher::new(Rc::clone(&settings), Rc::clone(&publishing), Rc::clone(&health));
        Rc::new(Self {
            settings,
            health,
            publishing,
            consuming: RefCell::default(),
            consuming_name: names.1,
            publisher,
            retries: Retries::default(),
            later: RefCell::default(),
            stale: Cell::new(0),
            serial: Cell::new(1),
            kept_bytes: Cell::new(0),
            subs: RefCell::default(),
        })
    }

    /// The next number for a token.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.replace(self.serial.get() + 1)
    }

    /// All live subscriptions.
    pub(crate) fn subs(&self) -> Vec<Rc<Sub>> {
        self.subs.borrow().clone()
    }

    /// Whether some subscription is to this topic.
    pub(crate) fn subscribes(&self, topic: &str) -> bool {
        self.subs.borrow().iter().any(|sub| sub.plan.topic == topic)
    }

    /// The connection that subscriptions share; the first one makes it.
    fn consuming(&self) -> Rc<Wire> {
        let mut consuming = self.consuming.borrow_mut();
        let wire = consuming.get_or_insert_with(|| {
            let wire = Wire::new(Rc::clone(&self.settings), self.consuming_name.clone());
            let (served, standing) = (Rc::clone(&wire), self.health.standing());
            task::spawn(async move { served.run(None, standing).await });
            wire
        });
        Rc::clone(wire)
    }

    /// Takes a subscription in.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add(&self, plan: Plan, group: String, limit: usize) -> Result<Rc<Sub>, Failure> {
        if self.subs.borrow().len() >= SUBS_MAX {
            return Err(Failure::Permanent(format!("more than {SUBS_MAX} subscriptions on one component")));
        }
        let sub = Sub::new(plan, group, limit, self.consuming());
        self.subs.borrow_mut().push(Rc::clone(&sub));
        Ok(sub)
    }

    /// Lets a subscription go; with the last one its connection ends.
    pub(crate) async fn remove(&self, sub: &Rc<Sub>) {
        self.subs.borrow_mut().retain(|other| !Rc::ptr_eq(other, sub));
        if self.subs.borrow().is_empty() {
            let wire = self.consuming.take();
            if let Some(wire) = wire {
                wire.close(CLOSE_WAIT).await;
            }
        }
    }

    /// A copy of a message, if there is room to keep one.
    pub(crate) fn keep(&self, message: &Message) -> Option<Message> {
        let bytes = self.kept_bytes.get() + size(message);
        if bytes > KEPT_MAX_BYTES {
            return None;
        }
        self.kept_bytes.set(bytes);
        Some(message.clone())
    }

    /// The copy of a message is not needed any more.
    pub(crate) fn release(&self, held: &Held) {
        let bytes = held.copy.as_ref().map_or(0, size);
        self.kept_bytes.set(self.kept_bytes.get().saturating_sub(bytes));
    }
}
