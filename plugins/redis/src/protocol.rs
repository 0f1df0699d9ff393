//! RESP2 without input or output: commands to bytes, bytes to replies.
//!
//! `redis-protocol` parses the frames. Before it sees a frame, `decode` has walked over it with every length and depth
//! bounded: the codec alone recurses as deep as the peer likes and starts over with every byte that arrives.

mod decode;
mod encode;
mod id;
mod reply;

#[cfg(test)]
use decode::Malformed;
pub(crate) use decode::{Decoder, Parsed};
pub(crate) use encode::{array, bulk, command, number};
pub(crate) use id::EntryId;
pub(crate) use reply::Reply;

/// The most bytes one message may have, data and metadata together. Redis itself allows 512 MiB; but an adapter has a
/// quarter of a gigabyte in all, and holds a message several times over while it is read.
pub(crate) const MESSAGE_MAX_BYTES: usize = 32 << 20;

/// The most bytes one reply may have: a message, and room for what goes with it.
pub(crate) const REPLY_MAX_BYTES: usize = MESSAGE_MAX_BYTES + (16 << 20);

/// The most bytes of a line: a number, a status or an error text.
const LINE_MAX_BYTES: usize = 64 << 10;

/// The most arrays within arrays. Replies to our commands need five.
const DEPTH_MAX: usize = 8;

/// The most elements of one reply, those of its inner arrays included.
const ELEMENTS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests;
