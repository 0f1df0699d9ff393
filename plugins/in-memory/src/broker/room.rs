//! The bound on what all of a connection's messages take together. Called by both modes before they keep a message.
//!
//! Each queue has limits of its own, but many queues within theirs could still take more than the memory a component may
//! have, and to run into that end is to lose all of them.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use whimbrel_sdk::{Failure, Message};

/// Bytes of all messages that are kept at the same time: half of what an instance may have. The rest is for what is on its
/// way in or out, and for what the allocator cannot use.
pub(super) const ROOM_BYTES: usize = 128 << 20;

/// What a message, or its place in one more queue, costs beside its bytes, about.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 128;

/// What an item of metadata costs beside its text, about.
const METADATA_OVERHEAD_BYTES: usize = 64;

/// What a publisher is asked to wait when there is no room, in nanoseconds.
pub(super) const THROTTLED_WAIT_NANOS: u64 = 100_000_000;

/// Counts the bytes of what is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Rc<Cell<usize>>);

/// A message that is kept; its bytes are free again when it is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    message: Message,
    size: usize,
    _claim: Claim,
}

#[derive(Debug)]
struct Claim {
    room: Room,
    bytes: usize,
}

/// What a message counts for.
pub(super) fn size(message: &Message) -> usize {
    let item = |(name, value): &(String, String)| name.len() + value.len() + METADATA_OVERHEAD_BYTES;
    let metadata = message.metadata.iter().map(item).sum::<usize>();
    let key = message.key.as_ref().map_or(0, String::len);
    message.topic.len() + key + message.data.len() + metadata + ENTRY_OVERHEAD_BYTES
}

impl Room {
    /// Whether so many bytes are free.
    pub(super) fn has(&self, bytes: usize) -> bool {
        self.0.get().saturating_add(bytes) <= ROOM_BYTES
    }

    /// Keeps a message of this [`size`], in so many places. `Throttled` when there is no room, and nothing is kept.
    pub(super) fn keep(&self, message: Message, size: usize, places: usize) -> Result<Kept, Failure> {
        let bytes = size + places * ENTRY_OVERHEAD_BYTES;
        if !self.has(bytes) {
            let text = format!("all messages that wait are more than {ROOM_BYTES} bytes together");
            return Err(Failure::Throttled((text, THROTTLED_WAIT_NANOS)));
        }
        self.0.set(self.0.get() + bytes);
        Ok(Kept { message, size, _claim: Claim { room: self.clone(), bytes } })
    }
}

impl Kept {
    /// What the message counts for.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The message, which is kept no longer.
    pub(super) fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Kept {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.room.0.set(self.room.0.get() - self.bytes);
    }
}
