//! Puts contents together: a header and as many parts of a body as it announces.

use super::cursor::Cursor;
use super::{BASIC, MESSAGE_MAX_BYTES, Malformed, Properties};

/// A message as it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) properties: Properties,
    /// Empty if `size` is more than we can hold.
    pub(crate) body: Vec<u8>,
    /// Bytes of the body as announced.
    pub(crate) size: u64,
}

impl Content {
    /// Whether the body was left out, for it is larger than this adapter can hold.
    pub(crate) fn is_too_large(&self) -> bool {
        self.size > MESSAGE_MAX_BYTES as u64
    }
}

/// What one more frame of a content brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is complete.
    Done(Content),
    /// More of it will come.
    More,
}

/// The content that a channel is in the middle of.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    content: Option<Content>,
    /// Bytes of the body that came so far, those that were left out included.
    come: u64,
}

impl Assembly {
    /// Takes the header.
    ///
    /// # Errors
    /// It is none, or came out of turn.
    pub(crate) fn header(&mut self, payload: &[u8]) -> Result<Step, Malformed> {
        let mut rest = Cursor(payload);
        if self.content.is_some() || rest.u16()? != BASIC {
            return Err(Malformed::Garbage);
        }
        rest.u16()?;
        let size = rest.u64()?;
        let content = Content { properties: Properties::read(&mut rest)?, body: Vec::new(), size };
        if size == 0 {
            return Ok(Step::Done(content));
        }
        self.come = 0;
        self.content = Some(content);
        Ok(Step::More)
    }

    /// Takes a part of the body.
    ///
    /// # Errors
    /// It came out of turn, or is more than was announced.
    pub(crate) fn body(&mut self, payload: &[u8]) -> Result<Step, Malformed> {
        let mut content = self.content.take().ok_or(Malformed::Garbage)?;
        self.come += payload.len() as u64;
        if self.come > content.size {
            return Err(Malformed::Garbage);
        }
        if !content.is_too_large() {
            if content.body.is_empty() {
                // Not all that was announced, which may be a lie, but all there is room for in one frame.
                content.body.reserve(usize::try_from(content.size).unwrap_or(0).min(payload.len().max(1 << 20)));
            }
            content.body.extend_from_slice(payload);
        }
        if self.come == content.size {
            return Ok(Step::Done(content));
        }
        self.content = Some(content);
        Ok(Step::More)
    }
}
