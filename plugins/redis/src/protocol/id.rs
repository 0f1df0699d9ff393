//! The id of a stream entry: milliseconds and a sequence number.

/// Ordered as Redis orders entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct EntryId {
    /// When it was added, Unix time in milliseconds by the server's clock.
    pub(crate) millis: u64,
    /// Its place among those of one millisecond.
    pub(crate) sequence: u64,
}

impl EntryId {
    /// Reads `1700000000000-0`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (millis, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// The smallest id after this one.
    pub(crate) fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self { millis: self.millis.saturating_add(1), sequence: 0 },
        }
    }

    /// Hands the text of the id to a function.
    pub(crate) fn with_text<T>(self, read: impl FnOnce(&[u8]) -> T) -> T {
        let mut text = [0; 41];
        let mut length = 0;
        let mut numbers = [itoa::Buffer::new(), itoa::Buffer::new()];
        let [millis, sequence] = &mut numbers;
        for part in [millis.format(self.millis), "-", sequence.format(self.sequence)] {
            text[length..length + part.len()].copy_from_slice(part.as_bytes());
            length += part.len();
        }
        read(&text[..length])
    }
}
