//! One call of publish: what became of each of its messages, and until when somebody waits for that.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use whimbrel_sdk::Failure;

use crate::bell::Bell;

/// See the module.
#[derive(Debug)]
pub(crate) struct Call {
    results: RefCell<Vec<Option<Result<(), Failure>>>>,
    open: Cell<usize>,
    pub(crate) until: Instant,
    done: Bell,
}

impl Call {
    /// Nothing is known of so many messages.
    pub(crate) fn new(count: usize, until: Instant) -> Rc<Self> {
        let results = RefCell::new(vec![None; count]);
        Rc::new(Self { results, open: Cell::new(count), until, done: Bell::default() })
    }

    /// What became of one. Only the first word counts.
    pub(crate) fn settle(&self, index: usize, result: Result<(), Failure>) {
        if let Some(slot @ None) = self.results.borrow_mut().get_mut(index) {
            *slot = Some(result);
            self.open.set(self.open.get() - 1);
        }
        if self.open.get() == 0 {
            self.done.ring();
        }
    }

    /// Whether something is to be waited for yet; gives up once the time is over.
    pub(crate) fn is_pending(&self, now: Instant) -> bool {
        if self.until <= now {
            let count = self.results.borrow().len();
            let late = || Failure::Unknown("sent to RabbitMQ, but not confirmed in time".to_owned());
            (0..count).for_each(|index| self.settle(index, Err(late())));
        }
        self.open.get() > 0
    }

    /// Returns when everything is known.
    pub(crate) async fn over(&self) {
        while self.open.get() > 0 {
            self.done.wait().await;
        }
    }

    /// What became of all.
    pub(crate) async fn results(&self) -> Vec<Result<(), Failure>> {
        self.over().await;
        let lost = || Err(Failure::Unknown("nothing is known of the message".to_owned()));
        self.results.take().into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }
}
