//! What comes back: confirmations, refusals, messages that no queue took, channels that end, deadlines.

use std::rc::{Rc, Weak};
use std::time::Duration;

use whimbrel_sdk::{Failure, timer};

use super::lane::{Book, Id, Sent};
use super::{Publisher, too_large};
use crate::call::Call;
use crate::channel::Event;
use crate::failure::{Lost, is_missing, is_refused, names_exchange, of_closed, size_limit};
use crate::message::own_id;

/// How often it is looked for calls whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

impl Publisher {
    /// Takes what a channel says.
    pub(super) fn hear(&self, book: &Book, event: Event) {
        match event {
            Event::Confirmed { tag, multiple, ok } => {
                let answered = book.confirms.borrow_mut().take(tag, multiple);
                for sent in answered {
                    self.size_proven.set(self.size_proven.get().max(sent.bytes));
                    sent.answered(ok);
                }
            }
            Event::Returned { exchange, content, .. } => {
                let id = content.properties.message_id.unwrap_or_default();
                self.returned(book, &exchange, &id);
            }
            Event::Lost(lost) => {
                let left = book.confirms.borrow_mut().take_all();
                left.into_iter().for_each(|sent| self.lost(sent, &lost));
            }
            Event::Delivered { .. } | Event::Cancelled => {}
        }
        book.room.ring();
    }

    /// No queue took a message.
    fn returned(&self, book: &Book, exchange: &str, id: &str) {
        if self.settings.allow_unroutable {
            let topic = self.topics.get(exchange);
            if !topic.is_warned(self.wire.about_now()) {
                topic.warn(self.wire.about_now());
                self.health.data_loss(format!(
                    "topic {exchange:?} has no queue that takes what is published to it: such messages are gone \
                     (metadata allowUnroutable: false makes that an error)"
                ));
            }
            return;
        }
        let is_it = |sent: &&mut Sent| match &sent.id {
            Id::Given(given) => given == id,
            Id::Ours(number) => own_id(&self.nonce, *number) == id,
        };
        book.confirms.borrow_mut().iter_mut().filter(is_it).for_each(|sent| sent.returned = true);
    }

    /// The channel is gone, and nobody will ever know whether the message was stored.
    fn lost(&self, sent: Sent, lost: &Lost) {
        let Sent { call, index, topic, bytes, .. } = sent;
        let unknown = Failure::Unknown(format!("sent to RabbitMQ, but not confirmed: {}", lost.why()));
        let failure = match lost {
            Lost::Closed(closed) if names_exchange(closed, &topic.name) && is_refused(closed) => {
                let failure = of_closed(closed, &format!("topic {:?}", topic.name));
                topic.refuse(timer::now(), failure.clone());
                failure
            }
            Lost::Closed(closed) if names_exchange(closed, &topic.name) && is_missing(closed) => {
                topic.forget();
                unknown
            }
            Lost::Closed(closed) => match size_limit(closed) {
                Some(max) if bytes > max => {
                    self.size_max.set(max);
                    too_large(bytes, max)
                }
                _ => unknown,
            },
            Lost::Broken(_) => unknown,
        };
        call.settle(index, Err(failure));
    }

    /// Sees to it that a call is answered in time.
    pub(super) fn watch(&self, call: &Rc<Call>) {
        let mut calls = self.calls.borrow_mut();
        calls.push(Rc::downgrade(call));
        if calls.len() == 1 {
            self.calling.raise();
        }
    }

    /// Gives up on calls whose time is over, for as long as anybody publishes.
    pub(crate) async fn expire(this: Weak<Self>) {
        loop {
            let Some(publisher) = this.upgrade() else { return };
            if publisher.calls.borrow().is_empty() {
                publisher.calling.wait().await;
            }
            drop(publisher);
            timer::sleep(EXPIRE_EVERY).await;
            let Some(publisher) = this.upgrade() else { return };
            let now = timer::now();
            publisher.calls.borrow_mut().retain(|call| call.upgrade().is_some_and(|call| call.is_pending(now)));
        }
    }

    /// Ends [`expire`](Self::expire).
    pub(crate) fn close(&self) {
        self.calling.raise();
    }
}
