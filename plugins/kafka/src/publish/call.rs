//! One publish call: what became of each of its messages so far, and who waits for the last.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use whimbrel_sdk::Failure;

use super::Room;
use crate::records::Record;
use whimbrel_sdk::signal::Signal;

/// One result for each message.
pub(super) type Results = Vec<Result<(), Failure>>;

/// What became of a message so far.
#[derive(Debug, Clone)]
enum State {
    /// It is not stored.
    Waiting,
    /// It may be stored.
    Written,
    Done(Result<(), Failure>),
    /// Its time was over while it was not stored: it must not be, any more.
    GivenUp,
}

/// See the module.
pub(super) struct Call {
    deadline: Instant,
    states: RefCell<Vec<State>>,
    left: Cell<usize>,
    done: Signal,
    /// What its messages wait for, as far as somebody has noticed.
    why: RefCell<String>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("left", &self.left).finish_non_exhaustive()
    }
}

/// A message that waits for its partition, or for the broker's answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: Record,
    /// How much of a batch it takes, at most, in bytes.
    pub(super) size: usize,
    pub(super) index: usize,
    pub(super) call: Rc<Call>,
    pub(super) _room: Room,
}

impl Pending {
    pub(super) fn resolve(&self, result: Result<(), Failure>) {
        self.call.resolve(self.index, result);
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.call.states.borrow().get(self.index), Some(State::GivenUp | State::Done(_)) | None)
    }

    /// It may be stored from now on, or is known not to be.
    pub(super) fn is_written(&self, written: bool) {
        if let Some(state @ (State::Waiting | State::Written)) = self.call.states.borrow_mut().get_mut(self.index) {
            *state = if written { State::Written } else { State::Waiting };
        }
    }

    /// Why it takes so long.
    pub(super) fn waits_for(&self, why: &str) {
        why.clone_into(&mut self.call.why.borrow_mut());
    }
}

impl Call {
    pub(super) fn of(messages: usize, deadline: Instant) -> Rc<Self> {
        let states = RefCell::new(vec![State::Waiting; messages]);
        Rc::new(Self { deadline, states, left: Cell::new(messages), done: Signal::default(), why: RefCell::default() })
    }

    /// This is what became of a message. Only the first result counts.
    pub(super) fn resolve(&self, index: usize, result: Result<(), Failure>) {
        if let Some(state @ (State::Waiting | State::Written)) = self.states.borrow_mut().get_mut(index) {
            *state = State::Done(result);
            self.left.set(self.left.get().saturating_sub(1));
        }
        if self.left.get() == 0 {
            self.done.raise();
        }
    }

    /// Whether all is known.
    pub(super) fn is_done(&self) -> bool {
        self.left.get() == 0
    }

    /// Whether the time is over. If so, nobody waits any longer.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let is_late = now >= self.deadline;
        if is_late {
            self.done.raise();
        }
        is_late
    }

    /// Waits until all is known, or somebody has noticed that the time is over.
    pub(super) async fn wait(&self) -> Results {
        if !self.is_done() {
            self.done.wait().await;
        }
        self.results()
    }

    /// What is known now. What is not will never be asked for again.
    pub(super) fn results(&self) -> Results {
        let why = std::mem::take(&mut *self.why.borrow_mut());
        let reason = if why.is_empty() { String::new() } else { format!(": {why}") };
        let result = |state: &mut State| match std::mem::replace(state, State::GivenUp) {
            State::Done(result) => result,
            State::Written => Err(Failure::Unknown(format!("sent to Kafka, but not confirmed in time{reason}"))),
            State::Waiting | State::GivenUp => Err(Failure::Transient(format!("not stored by Kafka in time{reason}"))),
        };
        self.states.borrow_mut().iter_mut().map(result).collect()
    }
}
