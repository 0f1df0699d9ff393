//! A reply as it lies in the buffer it was read into.

use redis_protocol::resp2::types::RangeFrame;

/// One reply, or one element of it. Nothing is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    frame: &'a RangeFrame,
    bytes: &'a [u8],
}

impl<'a> Reply<'a> {
    pub(super) fn new(frame: &'a RangeFrame, bytes: &'a [u8]) -> Self {
        Self { frame, bytes }
    }

    /// The text of an error reply. What is not UTF-8 in it is left out.
    pub(crate) fn error(&self) -> Option<&'a str> {
        let RangeFrame::Error(range) = self.frame else { return None };
        let text = self.range(*range);
        Some(match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
        })
    }

    /// The bytes of a string of either kind.
    pub(crate) fn bytes(&self) -> Option<&'a [u8]> {
        match self.frame {
            RangeFrame::SimpleString(range) | RangeFrame::BulkString(range) => Some(self.range(*range)),
            _ => None,
        }
    }

    /// A number.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self.frame {
            RangeFrame::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether this is the null of either kind.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.frame, RangeFrame::Null)
    }

    /// The elements of an array, one by one.
    pub(crate) fn items(&self) -> Option<impl ExactSizeIterator<Item = Self> + use<'a>> {
        let RangeFrame::Array(frames) = self.frame else { return None };
        let bytes = self.bytes;
        Some(frames.iter().map(move |frame| Self { frame, bytes }))
    }

    /// The elements of an array of exactly so many.
    pub(crate) fn tuple<const N: usize>(&self) -> Option<[Self; N]> {
        let items: Vec<Self> = self.items().filter(|items| items.len() == N)?.collect();
        items.try_into().ok()
    }

    fn range(&self, (from, to): (usize, usize)) -> &'a [u8] {
        self.bytes.get(from..to).unwrap_or_default()
    }
}
