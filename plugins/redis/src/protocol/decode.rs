//! Bytes to replies.

use std::fmt;

use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

use super::{DEPTH_MAX, ELEMENTS_MAX, LINE_MAX_BYTES, REPLY_MAX_BYTES, Reply};

/// An emptied buffer with more room than this is given back.
const KEEP_BYTES: usize = 1 << 20;

/// The peer does not speak the protocol, or says more than we listen to. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not RESP2.
    Garbage,
    /// A bound of this module was passed.
    TooLarge,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Garbage => "the peer does not answer in Redis's protocol",
            Self::TooLarge => "a reply is larger than this adapter can hold",
        })
    }
}

/// Takes bytes as they arrive, gives replies.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// What lies before it was given out.
    start: usize,
    walk: Walk,
}

/// A whole reply within the buffer of the decoder that gave it.
#[derive(Debug)]
pub(crate) struct Parsed {
    frame: RangeFrame,
    from: usize,
    to: usize,
}

impl Decoder {
    /// Where to append what arrives. Replies that were given out before are gone.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            if self.buffer.capacity() > KEEP_BYTES {
                self.buffer = Vec::new();
            }
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
        &mut self.buffer
    }

    /// The next whole reply.
    ///
    /// # Errors
    /// [`Malformed`]; what follows cannot be made sense of.
    pub(crate) fn next(&mut self) -> Result<Option<Parsed>, Malformed> {
        let bytes = &self.buffer[self.start..];
        let Some(length) = self.walk.advance(bytes)? else { return Ok(None) };
        self.walk = Walk::default();
        let (from, to) = (self.start, self.start + length);
        self.start = to;
        match decode_range(&self.buffer[from..to]) {
            Ok(Some((frame, read))) if read == length => Ok(Some(Parsed { frame, from, to })),
            _ => Err(Malformed::Garbage),
        }
    }

    /// What was parsed.
    pub(crate) fn reply<'a>(&'a self, parsed: &'a Parsed) -> Reply<'a> {
        Reply::new(&parsed.frame, self.buffer.get(parsed.from..parsed.to).unwrap_or_default())
    }
}

/// How far into an unfinished reply we are. It goes on where it stopped, so that a reply that arrives in many pieces
/// is walked over once.
#[derive(Debug, Default)]
struct Walk {
    at: usize,
    elements: usize,
    /// How many elements are missing in each array that was begun.
    missing: [usize; DEPTH_MAX],
    depth: usize,
}

impl Walk {
    /// The length of the reply that the bytes begin with, once all of it is there.
    fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        loop {
            let Some((length, children)) = element(&bytes[self.at..])? else { return Ok(None) };
            self.at += length;
            self.elements = self.elements.saturating_add(1).saturating_add(children);
            if self.at > REPLY_MAX_BYTES || self.elements > ELEMENTS_MAX {
                return Err(Malformed::TooLarge);
            }
            // A parent counted its children when it was met; they are not counted twice.
            self.elements -= usize::from(self.depth > 0);
            if children > 0 {
                let level = self.missing.get_mut(self.depth).ok_or(Malformed::TooLarge)?;
                *level = children;
                self.depth += 1;
            } else if self.finished() {
                return Ok(Some(self.at));
            }
        }
    }

    /// Counts an element as read, and with it each array it was the last of. Whether nothing is missing any more.
    fn finished(&mut self) -> bool {
        while self.depth > 0 {
            let level = &mut self.missing[self.depth - 1];
            *level -= 1;
            if *level > 0 {
                return false;
            }
            self.depth -= 1;
        }
        true
    }
}

/// The length of the element that the bytes begin with, without the elements of an array, and how many those are.
fn element(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if !b"+-:$*".contains(kind) {
        return Err(Malformed::Garbage);
    }
    let seen = &bytes[..bytes.len().min(LINE_MAX_BYTES)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE_MAX_BYTES { Err(Malformed::TooLarge) } else { Ok(None) };
    };
    if seen[end - 1] != b'\r' {
        return Err(Malformed::Garbage);
    }
    let line = end + 1;
    match kind {
        b'$' => bulk(bytes, line),
        b'*' => Ok(Some((line, length(&bytes[1..end - 1], ELEMENTS_MAX)?.unwrap_or(0)))),
        _ => Ok(Some((line, 0))),
    }
}

fn bulk(bytes: &[u8], line: usize) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(length) = length(&bytes[1..line - 2], REPLY_MAX_BYTES)? else { return Ok(Some((line, 0))) };
    let end = line + length;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((end + 2, 0))),
        Some(_) => Err(Malformed::Garbage),
    }
}

/// A length; none for the null.
fn length(digits: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    let number = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.filter(|text| !text.is_empty()).ok_or(Malformed::Garbage)?;
    // What does not even fit is too large, too.
    let number = number.parse::<usize>().map_err(|_| Malformed::TooLarge)?;
    if number > max { Err(Malformed::TooLarge) } else { Ok(Some(number)) }
}
