//! What is known of the topics that were published to: whether their exchange is declared, and whether the broker has
//! ever taken a message for them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use whimbrel_sdk::Failure;

/// Topics that are remembered. When there are more, all are forgotten; what that costs is to declare them again.
const TOPICS_MAX: usize = 20_000;

/// How long a refusal holds without asking the broker again.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// How long a warning about a topic holds.
const WARNED_WAIT: Duration = Duration::from_secs(60);

/// One topic.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// The connection on which its exchange was declared; 0: none.
    pub(crate) declared: Cell<u64>,
    /// The broker has confirmed a message for it. Until then it may refuse, and end the channel with that.
    pub(crate) proven: Cell<bool>,
    refused: RefCell<Option<(Instant, Failure)>>,
    warned: Cell<Option<Instant>>,
}

impl Topic {
    /// What the broker said a moment ago, if it refused.
    pub(crate) fn refused(&self, now: Instant) -> Option<Failure> {
        let refused = self.refused.borrow();
        let (at, failure) = refused.as_ref()?;
        (now.saturating_duration_since(*at) < REFUSED_WAIT).then(|| failure.clone())
    }

    /// The broker refuses it.
    pub(crate) fn refuse(&self, now: Instant, failure: Failure) {
        self.forget();
        self.refused.replace(Some((now, failure)));
    }

    /// Its exchange may be gone.
    pub(crate) fn forget(&self) {
        self.declared.set(0);
        self.proven.set(false);
    }

    /// Whether a warning about it is new.
    pub(crate) fn is_warned(&self, now: Instant) -> bool {
        self.warned.get().is_some_and(|at| now.saturating_duration_since(at) < WARNED_WAIT)
    }

    /// A warning was given.
    pub(crate) fn warn(&self, now: Instant) {
        self.warned.set(Some(now));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Topics(RefCell<HashMap<String, Rc<Topic>>>);

impl Topics {
    /// The topic of a name.
    pub(crate) fn get(&self, name: &str) -> Rc<Topic> {
        let mut topics = self.0.borrow_mut();
        if let Some(topic) = topics.get(name) {
            return Rc::clone(topic);
        }
        if topics.len() >= TOPICS_MAX {
            topics.clear();
        }
        let topic = Rc::new(Topic { name: name.to_owned(), ..Topic::default() });
        topics.insert(name.to_owned(), Rc::clone(&topic));
        topic
    }
}
