//! The channels that messages are published on, and what is in flight on each.

use std::cell::RefCell;
use std::rc::Rc;

use whimbrel_sdk::Failure;

use crate::bell::Bell;
use crate::call::Call;
use crate::channel::Channel;
use crate::confirms::Confirms;
use crate::topics::Topic;

/// Messages of one channel that may wait for their confirmation, about: one call may go beyond.
const UNCONFIRMED_MAX: usize = 4096;

/// A message that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) call: Rc<Call>,
    pub(super) index: usize,
    pub(super) topic: Rc<Topic>,
    pub(super) id: Id,
    pub(super) bytes: usize,
    /// No queue took it.
    pub(super) returned: bool,
}

/// Which channel a message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// What the broker has taken before.
    Proven,
    /// A topic it has not.
    NewTopic,
    /// A size it has not.
    NewSize,
}

pub(super) const WAYS: [Way; 3] = [Way::Proven, Way::NewTopic, Way::NewSize];

/// What the message is called. Ids that we give are made from a number when they are needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Id {
    Ours(u64),
    Given(String),
}

/// A channel to publish on.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) channel: Rc<Channel>,
    pub(super) serial: u64,
    pub(super) book: Rc<Book>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) confirms: RefCell<Confirms<Sent>>,
    pub(super) room: Bell,
}

impl Lane {
    /// Returns when one more message may be sent.
    pub(super) async fn room(&self) {
        while self.book.confirms.borrow().span() >= UNCONFIRMED_MAX && self.channel.is_open() {
            self.book.room.wait().await;
        }
    }
}

impl Sent {
    /// The broker has answered for it.
    pub(super) fn answered(self, ok: bool) {
        let Self { call, index, topic, returned, .. } = self;
        let name = &topic.name;
        let result = match (ok, returned) {
            (true, false) => Ok(()),
            (true, true) => Err(Failure::Transient(format!(
                "no-queue: topic {name:?} has no queue that takes this message, and nobody would get it \
                 (metadata allowUnroutable: true takes that for a success)"
            ))),
            (false, _) => Err(Failure::Throttled((
                format!("RabbitMQ refuses messages for topic {name:?}: one of its queues is full, or cannot write"),
                0,
            ))),
        };
        topic.proven.set(true);
        call.settle(index, result);
    }
}
