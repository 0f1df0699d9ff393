//! What all parts of one open connection share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use whimbrel_sdk::Failure;

use crate::api::{self, ApiError, Reply};
use crate::config::Settings;
use crate::failure::{Lost, denied};
use crate::protocol::status;
use crate::subscription::Sub;
use crate::wire::{Watcher, Wire};
use whimbrel_sdk::health::Health;

/// Bytes that the broker may send ahead for all subscriptions together, about.
const AHEAD_BYTES: usize = 48 << 20;

/// What the broker counts of a message besides its payload, at most, bytes.
const ENVELOPE_BYTES: usize = 64 << 10;

/// The longest part of a name that is not a hash.
const NAME_CHARS_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) settings: Rc<Settings>,
    pub(crate) wire: Rc<Wire>,
    pub(crate) health: Rc<Health>,
    /// Settlements that came too late to mean anything.
    pub(crate) stale: Cell<u64>,
    /// A stream was made since somebody asked.
    pub(crate) streams_created: Cell<bool>,
    serial: Cell<u64>,
    subs: RefCell<Vec<Rc<Sub>>>,
}

impl Hub {
    /// Nothing is subscribed yet.
    pub(crate) fn new(settings: Rc<Settings>, wire: Rc<Wire>, health: Rc<Health>) -> Rc<Self> {
        Rc::new(Self {
            settings,
            wire,
            health,
            stale: Cell::new(0),
            streams_created: Cell::new(false),
            serial: Cell::new(1),
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

    /// One more subscription.
    pub(crate) fn add(&self, sub: Rc<Sub>) {
        self.subs.borrow_mut().push(sub);
    }

    /// One less.
    pub(crate) fn remove(&self, sub: &Rc<Sub>) {
        self.subs.borrow_mut().retain(|other| !Rc::ptr_eq(other, sub));
    }

    /// The most bytes that may be pulled at once for one subscription. At least one message of any size fits.
    pub(crate) fn pull_bytes(&self) -> usize {
        let share = AHEAD_BYTES / self.subs.borrow().len().max(1);
        share.max(self.wire.max_payload() + ENVELOPE_BYTES)
    }

    /// Asks the JetStream API.
    ///
    /// # Errors
    /// It does not answer, or the user may not ask.
    pub(crate) async fn api<T: DeserializeOwned + 'static>(
        &self,
        what: &str,
        request: &[u8],
    ) -> Result<Result<T, ApiError>, Failure> {
        let subject = format!("{}.{what}", self.settings.api_prefix);
        let answered = self.wire.call(&subject, request, self.settings.request_wait, |msg| {
            if let Some(status) = status(msg.head) {
                return Err(match status.code {
                    503 => "JetStream does not answer: is it enabled (nats-server -js), and do metadata domain and apiPrefix \
                            fit?"
                        .to_owned(),
                    code => format!("JetStream answers {code} {}", status.text),
                });
            }
            let reply: Option<Reply<T>> = api::read(msg.payload);
            reply.and_then(Reply::split).ok_or_else(|| "the JetStream API is not understood".to_owned())
        });
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(Failure::Transient(format!("{subject}: {why}"))),
            Err(Lost::Denied(subject)) => Err(denied("publish to", &subject)),
            Err(Lost::Unsent(why) | Lost::Unanswered(why)) => Err(Failure::Transient(format!("{subject}: {why}"))),
        }
    }

    /// A name that NATS takes, made of one that it may not take. `of` is what it must be unlike for.
    #[expect(clippy::unused_self, reason = "where names are made is one place")]
    pub(crate) fn spelled(&self, name: &str, of: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let spelled: String = name.chars().map(plain).take(NAME_CHARS_MAX).collect();
        if spelled == of {
            return spelled;
        }
        let hash = Sha256::digest(of.as_bytes());
        let hash = hash.iter().take(8).fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
        format!("{spelled}-{hash}")
    }
}

/// Has the subscriptions know how the connection stands.
pub(crate) struct Watch(pub(crate) Weak<Hub>);

impl Watch {
    fn each(&self, act: impl Fn(&Hub, &Rc<Sub>)) {
        if let Some(hub) = self.0.upgrade() {
            hub.subs().iter().for_each(|sub| act(&hub, sub));
        }
    }
}

impl Watcher for Watch {
    fn up(&self) {
        self.each(|_, sub| sub.wake());
    }

    fn down(&self) {
        self.each(|_, sub| sub.lose_tokens());
    }

    fn denied(&self, what: &'static str, subject: &str) {
        self.each(|hub, sub| {
            if sub.needs(hub, subject) {
                sub.fail(denied(what, subject));
                hub.remove(sub);
            }
        });
    }
}

/// As the broker counts time.
pub(crate) fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}
