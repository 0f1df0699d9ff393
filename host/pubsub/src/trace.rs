//! The W3C trace context (https://www.w3.org/TR/trace-context/): which span something belongs to. Called by the doors, by
//! `event` and by `spans`.

use std::fmt;

/// The longest form that is ours to understand, that of version 00. What a later version adds is not handed on.
const TEXT_BYTES: usize = 55;

/// A `traceparent`: version, trace, span and flags, kept as its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent([u8; TEXT_BYTES]);

impl TraceParent {
    /// What daprd answers, and tells apps, where there is no trace.
    pub const NONE: Self = Self(*b"00-00000000000000000000000000000000-0000000000000000-00");

    /// `version-trace-span-flags` in lower-case hexadecimal, neither id all zeros. Version 00 ends there; what follows in a
    /// later version is left out. `None`: it is something else (section 3.2 of the standard).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let kept: [u8; TEXT_BYTES] = bytes.get(..TEXT_BYTES)?.try_into().ok()?;
        let end_of = |position: usize| position == 2 || position == 35 || position == 52;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let shaped =
            kept.iter().enumerate().all(|(position, &byte)| if end_of(position) { byte == b'-' } else { is_hex(byte) });
        let is_zero = |range: std::ops::Range<usize>| kept[range].iter().all(|&byte| byte == b'0');
        if !shaped || is_zero(3..35) || is_zero(36..52) {
            return None;
        }
        let ends_well = match &kept[..2] {
            b"ff" => false,
            b"00" => bytes.len() == TEXT_BYTES,
            _ => bytes.get(TEXT_BYTES).is_none_or(|byte| *byte == b'-'),
        };
        ends_well.then_some(Self(kept))
    }

    /// Of these ids, neither of which is zero.
    #[must_use]
    pub(crate) fn new(trace_id: u128, span_id: u64, is_sampled: bool) -> Self {
        let mut text = Self::NONE.0;
        write_hex(&mut text[3..35], trace_id);
        write_hex(&mut text[36..52], u128::from(span_id));
        text[54] = if is_sampled { b'1' } else { b'0' };
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // ASCII, whichever way it was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        u128::from_str_radix(&self.as_str()[3..35], 16).unwrap_or_default()
    }

    /// The span.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        u64::from_str_radix(&self.as_str()[36..52], 16).unwrap_or_default()
    }

    /// Whether whoever made it records the span.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.as_str()[53..], 16).unwrap_or_default() & 1 == 1
    }

    /// Whether it names a span.
    #[must_use]
    pub fn is_some(&self) -> bool {
        *self != Self::NONE
    }
}

/// The digits of a number, as many as there is room for.
fn write_hex(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The W3C trace context of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`, if it was valid.
    pub parent: Option<TraceParent>,
    /// `tracestate`.
    pub state: Option<String>,
}

#[cfg(test)]
mod tests;
