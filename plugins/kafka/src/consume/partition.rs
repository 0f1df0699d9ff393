//! One partition that this member reads, from the moment it was assigned until it is given up. When the same partition is
//! assigned again later, that is another one of these, and tokens of the first mean nothing to it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use whimbrel_sdk::backoff::Backoff;

use super::batches::Batch;
use crate::group::window::Window;
use crate::records::{self, Record};

/// See the module.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) id: i32,
    /// The broker that leads it, once that is known.
    pub(crate) leader: Cell<Option<i32>>,
    /// Whether its messages may be delivered. False for good once it is given up.
    pub(crate) is_ours: Cell<bool>,
    /// There is something to commit.
    pub(crate) is_dirty: Cell<bool>,
    /// Nothing is fetched before, since something was wrong.
    rest_until: Cell<Option<Instant>>,
    trouble: RefCell<Backoff>,
    /// What was said of that trouble last.
    told: RefCell<Option<String>>,
    flow: RefCell<Option<Flow>>,
    /// The offset that the next message published will have, as the broker said last.
    high: Cell<i64>,
    /// The broker has said so since it was looked at last.
    is_heard: Cell<bool>,
}

/// Where it stands; known once the group's offset was asked for.
#[derive(Debug)]
struct Flow {
    window: Window,
    fetch_at: i64,
    /// Fetched, not decoded.
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Decoded, not handed out; `end` is the offset after all of them.
    records: std::vec::IntoIter<Record>,
    end: i64,
}

/// What to tell the broker of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) offset: i64,
    pub(crate) note: String,
}

impl Partition {
    /// It was assigned; where it begins is not known yet.
    pub(crate) fn new(topic: String, id: i32) -> Self {
        Self {
            topic,
            id,
            leader: Cell::new(None),
            is_ours: Cell::new(true),
            is_dirty: Cell::new(false),
            rest_until: Cell::new(None),
            trouble: RefCell::default(),
            told: RefCell::default(),
            flow: RefCell::new(None),
            high: Cell::new(0),
            is_heard: Cell::new(false),
        }
    }

    /// It begins at an offset, with the note that was committed with it.
    pub(crate) fn begin(&self, offset: i64, note: &str) {
        let (window, records) = (Window::at(offset, note), Vec::new().into_iter());
        let flow = Flow { window, fetch_at: offset, batches: VecDeque::new(), bytes: 0, records, end: offset };
        self.flow.replace(Some(flow));
        self.high.set(offset.max(self.high.get()));
    }

    /// Whether it is known where it begins.
    pub(crate) fn has_begun(&self) -> bool {
        self.flow.borrow().is_some()
    }

    /// Where to fetch, and how many bytes were fetched that nobody has had yet. `None`: nothing is to be fetched now.
    pub(crate) fn fetch_at(&self, now: Instant) -> Option<(i64, usize)> {
        if !self.is_ours.get() || self.rest_until.get().is_some_and(|until| until > now) {
            return None;
        }
        self.flow.borrow().as_ref().map(|flow| (flow.fetch_at, flow.bytes))
    }

    /// Takes what was fetched from an offset on, unless that is not where to fetch any more.
    pub(crate) fn take(&self, fetched_at: i64, batches: Vec<Batch>, high: i64) {
        self.ends_at(high);
        let mut flow = self.flow.borrow_mut();
        let Some(flow) = flow.as_mut().filter(|flow| self.is_ours.get() && flow.fetch_at == fetched_at) else { return };
        let Some(last) = batches.last() else { return };
        flow.fetch_at = last.end.max(fetched_at);
        flow.bytes += batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
        flow.batches.extend(batches);
    }

    /// The next message to deliver, if one was fetched.
    ///
    /// # Errors
    /// What was fetched is broken. It is fetched again, after a while.
    pub(crate) fn next(&self) -> Result<Option<Record>, String> {
        if !self.is_ours.get() {
            return Ok(None);
        }
        let mut flow = self.flow.borrow_mut();
        let Some(flow) = flow.as_mut() else { return Ok(None) };
        let before = flow.window.committable();
        let next = flow.next();
        if flow.window.committable() > before {
            // What was left out on the way counts as done.
            self.is_dirty.set(true);
        }
        if next.is_err() {
            flow.fetch_again();
        }
        next
    }

    /// Acknowledges. True: there is another offset to commit.
    pub(crate) fn ack(&self, offset: i64) -> bool {
        self.is_dirty.set(true);
        self.flow.borrow_mut().as_mut().is_some_and(|flow| flow.window.ack(offset))
    }

    /// What to commit.
    pub(crate) fn commit(&self) -> Option<Commit> {
        let flow = self.flow.borrow();
        let window = &flow.as_ref()?.window;
        Some(Commit { offset: window.committable(), note: window.note() })
    }

    /// Messages at the broker that were not handed out.
    pub(crate) fn behind(&self) -> u64 {
        let read = self.flow.borrow().as_ref().map_or(i64::MAX, |flow| flow.window.read());
        u64::try_from(self.high.get().saturating_sub(read)).unwrap_or(0)
    }

    /// The broker says where it ends.
    pub(crate) fn ends_at(&self, high: i64) {
        self.high.set(high);
        self.is_heard.set(true);
    }

    /// Whether the broker has not said where it ends since this was asked last, though it could be asked. What it says from
    /// now on counts for the next time.
    pub(crate) fn was_silent(&self) -> bool {
        let is_readable = self.is_ours.get() && self.has_begun() && self.leader.get().is_some();
        !self.is_heard.replace(false) && is_readable && self.rest_until.get().is_none()
    }

    /// Fetches nothing for a while, which grows. Returns it.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        let wait = self.trouble.borrow_mut().next_wait();
        self.rest_until.set(Some(now + wait));
        wait
    }

    /// Whether this was not the last thing said of its trouble: one that lasts must not fill the log.
    pub(crate) fn is_news(&self, why: &str) -> bool {
        let before = self.told.replace(Some(why.to_owned()));
        before.as_deref() != Some(why)
    }

    /// All is well again.
    pub(crate) fn is_well(&self) {
        self.rest_until.set(None);
        self.told.take();
        self.trouble.borrow_mut().reset();
    }

    /// Until when nothing is fetched.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.rest_until.get()
    }
}

impl Flow {
    fn next(&mut self) -> Result<Option<Record>, String> {
        loop {
            for record in self.records.by_ref() {
                // Compressed batches come whole, with what lies before the offset asked for.
                if record.offset >= self.window.read() && self.window.hand(record.offset) {
                    return Ok(Some(record));
                }
            }
            self.window.pass_to(self.end);
            let Some(batch) = self.batches.pop_front() else { return Ok(None) };
            self.bytes = self.bytes.saturating_sub(batch.bytes.len());
            if !batch.bytes.is_empty() {
                self.records = decode(batch.bytes, self.window.read())?.into_iter();
            }
            self.end = batch.end;
        }
    }

    fn fetch_again(&mut self) {
        self.batches.clear();
        self.bytes = 0;
        self.fetch_at = self.window.read();
        self.end = self.fetch_at;
    }
}

fn decode(bytes: Bytes, from: i64) -> Result<Vec<Record>, String> {
    records::read(bytes, from).map(|fetched| fetched.records)
}
