//! What of one partition is done: the offsets that were handed out and not acknowledged, and from it the one offset that
//! Kafka remembers for a group. A committed offset never passes a hole.
//!
//! What was acknowledged beyond a hole travels in the commit's metadata, the *note*, so that the next owner of the
//! partition does not deliver it again. Other clients ignore it, and deliver again.
//!
//! ```text
//! offset   5    6    7    8    9   10
//!         done open done done open  (never handed out)
//!               ^ commit 6, note "w1:1,2,1": one open, two done, one open
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How a note of ours begins.
const NOTE_MARK: &str = "w1:";

/// Bytes of a note, at most. Brokers take 4096 by default; what does not fit is delivered again.
pub(crate) const NOTE_MAX_BYTES: usize = 1024;

/// Offsets that a note may speak of: a broken one must not fill the memory.
const NOTE_SPAN_MAX: i64 = 1 << 20;

/// Open offsets that a note may name.
const NOTE_OPEN_MAX: usize = 1 << 14;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Everything below was read: handed out, passed over, or done by an earlier owner.
    read: i64,
    /// Everything below is done, unless it is open. Beyond `read` only where an earlier owner's note reached further.
    known: i64,
    open: BTreeSet<i64>,
}

impl Window {
    /// From the offset a group has committed, with the note that came with it.
    pub(crate) fn at(committed: i64, note: &str) -> Self {
        let mut window = Self { read: committed, known: committed, open: BTreeSet::new() };
        window.take_note(note);
        window
    }

    /// Hands out an offset, the next one of the partition. False: it was done before, by an earlier owner.
    pub(crate) fn hand(&mut self, offset: i64) -> bool {
        self.pass_to(offset);
        self.read = self.read.max(offset.saturating_add(1));
        if offset < self.known {
            return self.open.contains(&offset);
        }
        self.known = offset.saturating_add(1);
        self.open.insert(offset)
    }

    /// There is nothing to hand out below this offset: control records, compacted or expired ones.
    pub(crate) fn pass_to(&mut self, offset: i64) {
        if offset <= self.read {
            return;
        }
        if self.read < self.known {
            self.open.retain(|open| *open < self.read || *open >= offset);
        }
        self.read = offset;
        self.known = self.known.max(offset);
    }

    /// Acknowledges an offset. True: the offset to commit has moved.
    pub(crate) fn ack(&mut self, offset: i64) -> bool {
        let was_first = self.open.first() == Some(&offset);
        self.open.remove(&offset) && was_first
    }

    /// The offset to commit: the lowest that is not done.
    pub(crate) fn committable(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.known)
    }

    /// The offset to read next.
    pub(crate) fn read(&self) -> i64 {
        self.read
    }

    /// What is done beyond the offset to commit, as far as it fits. Empty: nothing is.
    pub(crate) fn note(&self) -> String {
        let mut note = String::new();
        let mut at = self.committable();
        let mut open = self.open.iter().copied().peekable();
        while let Some(first) = open.next() {
            let mut end = first.saturating_add(1);
            while open.next_if_eq(&end).is_some() {
                end = end.saturating_add(1);
            }
            let done_until = open.peek().copied().unwrap_or(self.known);
            if done_until == end || done_until - self.committable() > NOTE_SPAN_MAX {
                break;
            }
            let before = note.len();
            let comma = if note.is_empty() { NOTE_MARK } else { "," };
            // Writing to a string does not fail.
            write!(note, "{comma}{},{}", end - at, done_until - end).ok();
            if note.len() > NOTE_MAX_BYTES {
                note.truncate(before);
                break;
            }
            at = done_until;
        }
        note
    }

    /// Takes up what an earlier owner knew. Anybody else's metadata means nothing here.
    fn take_note(&mut self, note: &str) {
        let Some(runs) = note.strip_prefix(NOTE_MARK) else { return };
        let (mut at, mut open, mut is_open) = (self.known, BTreeSet::new(), true);
        for run in runs.split(',') {
            let Ok(length) = run.parse::<i64>() else { return };
            let sound = length > 0 && at - self.known <= NOTE_SPAN_MAX - length.min(NOTE_SPAN_MAX);
            let length_fits = usize::try_from(length).is_ok_and(|length| open.len() + length <= NOTE_OPEN_MAX);
            if !sound || (is_open && !length_fits) {
                return;
            }
            let end = at.saturating_add(length);
            if is_open {
                open.extend(at..end);
            }
            (at, is_open) = (end, !is_open);
        }
        if is_open {
            (self.known, self.open) = (at, open);
        }
    }
}

#[cfg(test)]
mod tests;
