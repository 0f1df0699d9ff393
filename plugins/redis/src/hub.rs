//! What all parts of one open connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Failure, task};

use crate::config::Settings;
use crate::fetch::Reader;
use crate::pipe::Pipe;
use crate::retries::Retries;
use crate::subscription::Sub;
use whimbrel_sdk::health::Health;

/// How long a request that is not a publish waits for a connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Groups one component can read for; each has a connection of its own.
const READERS_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) settings: Rc<Settings>,
    pub(crate) instance: String,
    pub(crate) pipe: Rc<Pipe>,
    pub(crate) health: Rc<Health>,
    pub(crate) retries: Retries,
    /// Settlements that came too late to mean anything.
    pub(crate) stale: Cell<u64>,
    /// The server does not know `XPENDING ... IDLE`: it is older than Redis 6.2.
    pub(crate) is_old: Cell<bool>,
    serial: Cell<u64>,
    readers: RefCell<Vec<Rc<Reader>>>,
}

impl Hub {
    /// Nothing is subscribed yet.
    pub(crate) fn new(settings: Rc<Settings>, instance: String, pipe: Rc<Pipe>, health: Rc<Health>) -> Rc<Self> {
        Rc::new(Self {
            settings,
            instance,
            pipe,
            health,
            retries: Retries::default(),
            stale: Cell::new(0),
            is_old: Cell::new(false),
            serial: Cell::new(1),
            readers: RefCell::default(),
        })
    }

    /// The next number for a token.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.replace(self.serial.get() + 1)
    }

    /// The number that the next token will have.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.get()
    }

    /// All live subscriptions.
    pub(crate) fn subs(&self) -> Vec<Rc<Sub>> {
        self.readers.borrow().iter().flat_map(|reader| reader.subs()).collect()
    }

    /// The reader for one more subscription of a group to a topic. It is a connection and a consumer of its own where the
    /// group has that topic already, so that both subscriptions can be told apart.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn reader(self: &Rc<Self>, group: &str, topic: &str) -> Result<Rc<Reader>, Failure> {
        let mut readers = self.readers.borrow_mut();
        let fits = |reader: &&Rc<Reader>| reader.group == group && !reader.has(topic);
        if let Some(reader) = readers.iter().find(fits) {
            return Ok(Rc::clone(reader));
        }
        if readers.len() >= READERS_MAX {
            return Err(Failure::Permanent(format!("more than {READERS_MAX} groups on one component")));
        }
        let taken = |name: &str| readers.iter().any(|reader| reader.consumer == name);
        let base = format!("{group}:{}", self.instance);
        let numbered = (2..).map(|number| format!("{base}:{number}"));
        let consumer = std::iter::once(base.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(base);
        let reader = Reader::new(group.to_owned(), consumer);
        readers.push(Rc::clone(&reader));
        task::spawn(Rc::clone(&reader).run(Rc::clone(self)));
        Ok(reader)
    }

    /// Takes a subscription away from its reader, and ends the reader with its last one.
    pub(crate) fn remove(&self, sub: &Rc<Sub>) {
        sub.reader.remove(sub);
        self.readers.borrow_mut().retain(|reader| !reader.is_closed());
    }

    /// The main connection was lost, and with it what was settled on it: all tokens are stale, and what is pending for
    /// this instance will be read again.
    pub(crate) fn lose_tokens(&self) {
        for sub in self.subs() {
            sub.lose_tokens();
            sub.reader.wake();
        }
    }
}
