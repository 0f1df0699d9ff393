//! Bytes to frames, and the frame around what is sent.

use std::fmt;

/// What a connection begins with.
pub(crate) const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// No peer may ask for smaller frames than this.
pub(crate) const FRAME_MIN_BYTES: u32 = 4096;

/// Bytes of a frame besides its payload.
const OVERHEAD_BYTES: usize = 8;

/// Bytes before the payload: kind, channel, length.
const HEAD_BYTES: usize = 7;

const END: u8 = 0xCE;

const KIND_METHOD: u8 = 1;
const KIND_HEADER: u8 = 2;
const KIND_BODY: u8 = 3;
const KIND_HEARTBEAT: u8 = 8;

/// An emptied buffer with more room than this is given back.
const KEEP_BYTES: usize = 1 << 20;

/// The peer does not speak the protocol, or says more than we listen to. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not AMQP 0-9-1.
    Garbage,
    /// AMQP, and another version of it: the peer answered with the one it speaks.
    OtherVersion,
    /// A frame is larger than was agreed.
    TooLarge,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Garbage => "the peer does not speak AMQP 0-9-1",
            Self::OtherVersion => "the peer speaks AMQP, but not version 0-9-1",
            Self::TooLarge => "a frame is larger than was agreed",
        })
    }
}

/// One frame, within the buffer of the decoder that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A method of a channel.
    Method(u16, &'a [u8]),
    /// What a content has before its body.
    Header(u16, &'a [u8]),
    /// A part of a content's body.
    Body(u16, &'a [u8]),
    /// The peer lives.
    Heartbeat,
}

/// Takes bytes as they arrive, gives frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// What lies before it was given out.
    start: usize,
    /// The most bytes of a frame.
    pub(crate) frame_max: usize,
}

impl Decoder {
    /// Nothing has arrived yet.
    pub(crate) fn new(frame_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, frame_max }
    }

    /// Where to append what arrives.
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

    /// The next frame. None: more bytes are needed.
    ///
    /// # Errors
    /// What the peer says is no frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Malformed> {
        let rest = &self.buffer[self.start..];
        let Some((head, tail)) = rest.split_at_checked(HEAD_BYTES) else {
            return if is_possible(rest) { Ok(None) } else { Err(complaint(rest)) };
        };
        let &[kind, c1, c2, l1, l2, l3, l4] = head else { return Err(Malformed::Garbage) };
        if !matches!(kind, KIND_METHOD | KIND_HEADER | KIND_BODY | KIND_HEARTBEAT) {
            return Err(complaint(rest));
        }
        let length = usize::try_from(u32::from_be_bytes([l1, l2, l3, l4])).map_err(|_| Malformed::TooLarge)?;
        if length.saturating_add(OVERHEAD_BYTES) > self.frame_max {
            return Err(Malformed::TooLarge);
        }
        let Some((payload, end)) = tail.split_at_checked(length) else { return Ok(None) };
        match end.first() {
            None => return Ok(None),
            Some(&END) => {}
            Some(_) => return Err(Malformed::Garbage),
        }
        self.start += length + OVERHEAD_BYTES;
        let channel = u16::from_be_bytes([c1, c2]);
        Ok(Some(match kind {
            KIND_METHOD => Frame::Method(channel, payload),
            KIND_HEADER => Frame::Header(channel, payload),
            KIND_BODY => Frame::Body(channel, payload),
            _ => Frame::Heartbeat,
        }))
    }
}

/// Whether this may become a frame, or the header a peer answers with that speaks another version.
fn is_possible(bytes: &[u8]) -> bool {
    match bytes.first() {
        None | Some(&(KIND_METHOD | KIND_HEADER | KIND_BODY | KIND_HEARTBEAT)) => true,
        Some(_) => HEADER.starts_with(bytes),
    }
}

fn complaint(bytes: &[u8]) -> Malformed {
    if bytes.starts_with(b"AMQP") { Malformed::OtherVersion } else { Malformed::Garbage }
}

/// Appends a frame whose payload `write` appends.
fn framed(out: &mut Vec<u8>, kind: u8, channel: u16, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let start = out.len();
    write(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[length_at..start].copy_from_slice(&length.to_be_bytes());
    out.push(END);
}

/// Appends a method frame.
pub(super) fn method(out: &mut Vec<u8>, channel: u16, (class, id): (u16, u16), write: impl FnOnce(&mut Vec<u8>)) {
    framed(out, KIND_METHOD, channel, |out| {
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        write(out);
    });
}

/// Appends a content: its header, and its body in frames of at most `frame_max` bytes.
pub(super) fn content(
    out: &mut Vec<u8>,
    channel: u16,
    frame_max: usize,
    body: &[u8],
    properties: impl FnOnce(&mut Vec<u8>),
) {
    framed(out, KIND_HEADER, channel, |out| {
        out.extend_from_slice(&super::BASIC.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        properties(out);
    });
    for part in body.chunks(frame_max.saturating_sub(OVERHEAD_BYTES).max(1)) {
        framed(out, KIND_BODY, channel, |out| out.extend_from_slice(part));
    }
}

/// Appends a sign of life.
pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    framed(out, KIND_HEARTBEAT, 0, |_| ());
}

/// Appends a short string. The caller has seen to its length; what is too long is cut, for a length that lies would make
/// garbage of all that follows.
pub(super) fn short(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(super::SHORT_MAX_BYTES)];
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

/// Appends a long string.
pub(super) fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}
