//! Reads a frame's payload from left to right, and never beyond its end.

use super::Malformed;

/// What is left of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Garbage)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Garbage)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A short string. What is no UTF-8 is made so: a broker takes any bytes for a name.
    pub(super) fn short(&mut self) -> Result<String, Malformed> {
        let length = self.u8()?;
        Ok(String::from_utf8_lossy(self.take(usize::from(length))?).into_owned())
    }

    /// Passes over a short string.
    pub(super) fn skip_short(&mut self) -> Result<(), Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length)).map(|_| ())
    }

    /// A long string, or a table: bytes with their length before them.
    pub(super) fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed::Garbage)?)
    }
}
