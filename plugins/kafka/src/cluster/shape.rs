//! What answers are made of, as far as it takes to know how many entries their lists have, before anything is decoded.
//!
//! The codec crate makes room for as many entries as an answer claims to have, and whoever answers may claim anything:
//! that would end the component. So an answer is walked through first. Its lists may not have more entries than there
//! are bytes for, and not more than [`ENTRIES_MAX`] together.
//!
//! The shapes are those of Kafka's protocol in the versions that `versions` chooses from. Those have no known field in
//! a tag; one that has must not be chosen before its shape is known here.

use kafka_protocol::messages::ApiKey;

/// Entries of all lists of an answer, and its tags. A topic of ten thousand partitions has a tenth of it for metadata.
const ENTRIES_MAX: usize = 1 << 18;

/// Bytes of the number that says which request an answer is to.
const CORRELATION_BYTES: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    Text,
    Bytes,
    /// Of structures, which may end with tags.
    List(&'static [Field]),
    /// Of numbers or texts, which do not.
    Plain(&'static Kind),
}

/// A field, and the versions that have it.
#[derive(Debug, Clone, Copy)]
struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

impl Field {
    const fn since(self, since: i16) -> Self {
        Self { since, ..self }
    }

    const fn until(self, until: i16) -> Self {
        Self { until, ..self }
    }
}

const fn of(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, kind }
}

const fn list(fields: &'static [Field]) -> Field {
    of(Kind::List(fields))
}

const I8: Field = of(Kind::Fixed(1));
const I16: Field = of(Kind::Fixed(2));
const I32: Field = of(Kind::Fixed(4));
const I64: Field = of(Kind::Fixed(8));
const UUID: Field = of(Kind::Fixed(16));
const TEXT: Field = of(Kind::Text);
const BYTES: Field = of(Kind::Bytes);
const NUMBERS: Field = of(Kind::Plain(&Kind::Fixed(4)));
const TEXTS: Field = of(Kind::Plain(&Kind::Text));

const METADATA: &[Field] = &[
    I32.since(3),
    list(&[I32, TEXT, I32, TEXT.since(1)]),
    TEXT.since(2),
    I32.since(1),
    list(&[
        I16,
        TEXT,
        UUID.since(10),
        I8.since(1),
        list(&[I16, I32, I32, I32.since(7), NUMBERS, NUMBERS, NUMBERS.since(5)]),
        I32.since(8),
    ]),
    I32.since(8).until(10),
];

const PRODUCE: &[Field] =
    &[list(&[TEXT, list(&[I32, I16, I64, I64, I64.since(5), list(&[I32, TEXT]).since(8), TEXT.since(8)])]), I32];

const FETCH: &[Field] = &[
    I32,
    I16.since(7),
    I32.since(7),
    list(&[TEXT, list(&[I32, I16, I64, I64, I64.since(5), list(&[I64, I64]), I32.since(11), BYTES])]),
];

const LIST_OFFSETS: &[Field] = &[I32.since(2), list(&[TEXT, list(&[I32, I16, I64, I64, I32.since(4)])])];

const OFFSET_COMMIT: &[Field] = &[I32.since(3), list(&[TEXT, list(&[I32, I16])])];

const COMMITTED: Field = list(&[TEXT, list(&[I32, I64, I32.since(5), TEXT, I16])]);

const OFFSET_FETCH: &[Field] =
    &[I32.since(3), COMMITTED.until(7), I16.since(2).until(7), list(&[TEXT, COMMITTED, I16]).since(8)];

const FIND_COORDINATOR: &[Field] = &[I32.since(1), I16, TEXT.since(1), I32, TEXT, I32];

const JOIN_GROUP: &[Field] =
    &[I32.since(2), I16, I32, TEXT.since(7), TEXT, TEXT, I8.since(9), TEXT, list(&[TEXT, TEXT.since(5), BYTES])];

const HEARTBEAT: &[Field] = &[I32.since(1), I16];

const LEAVE_GROUP: &[Field] = &[I32.since(1), I16, list(&[TEXT, TEXT, I16]).since(3)];

const SYNC_GROUP: &[Field] = &[I32.since(1), I16, TEXT.since(5), TEXT.since(5), BYTES];

const INIT_PRODUCER_ID: &[Field] = &[I32, I16, I64, I16];

const SASL_HANDSHAKE: &[Field] = &[I16, TEXTS];

const SASL_AUTHENTICATE: &[Field] = &[I16, TEXT, BYTES, I64.since(1)];

/// Of the answer to a request, and the newest version for which it is right.
fn shape(key: i16) -> Option<(&'static [Field], i16)> {
    Some(match ApiKey::try_from(key).ok()? {
        ApiKey::Metadata => (METADATA, 12),
        ApiKey::Produce => (PRODUCE, 9),
        ApiKey::Fetch => (FETCH, 11),
        ApiKey::ListOffsets => (LIST_OFFSETS, 10),
        ApiKey::OffsetCommit => (OFFSET_COMMIT, 9),
        ApiKey::OffsetFetch => (OFFSET_FETCH, 9),
        ApiKey::FindCoordinator => (FIND_COORDINATOR, 3),
        ApiKey::JoinGroup => (JOIN_GROUP, 9),
        ApiKey::Heartbeat => (HEARTBEAT, 4),
        ApiKey::LeaveGroup => (LEAVE_GROUP, 5),
        ApiKey::SyncGroup => (SYNC_GROUP, 5),
        ApiKey::InitProducerId => (INIT_PRODUCER_ID, 4),
        ApiKey::SaslHandshake => (SASL_HANDSHAKE, 1),
        ApiKey::SaslAuthenticate => (SASL_AUTHENTICATE, 2),
        _ => return None,
    })
}

/// The newest version of a request whose answer can be looked through. None before the first.
pub(super) fn newest(key: i16) -> i16 {
    shape(key).map_or(-1, |(_, newest)| newest)
}

/// Whether an answer has as many entries as it says, and not too many. Header and all; `has_tags` in the versions whose
/// structures end with tags. What follows it is not looked at, here or by the codec.
pub(super) fn is_sound(answer: &[u8], key: i16, version: i16, has_tags: bool) -> bool {
    let Some((fields, newest)) = shape(key).filter(|(_, newest)| version <= *newest) else { return false };
    let mut walk = Walk { rest: answer, version: version.min(newest), has_tags, entries: 0 };
    walk.skip(CORRELATION_BYTES).is_some() && walk.tags().is_some() && walk.structure(fields).is_some()
}

/// Where one is in an answer. `None`, wherever it is returned: there are no such bytes.
struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    has_tags: bool,
    entries: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &'static [Field]) -> Option<()> {
        for field in fields {
            if (field.since..=field.until).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        self.tags()
    }

    fn value(&mut self, kind: &'static Kind) -> Option<()> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = if self.has_tags { self.compact_length() } else { self.length::<2>() }?;
                self.skip(length)
            }
            Kind::Bytes => {
                let length = if self.has_tags { self.compact_length() } else { self.length::<4>() }?;
                self.skip(length)
            }
            Kind::List(fields) => (0..self.count()?).try_for_each(|_| self.structure(fields)),
            Kind::Plain(kind) => (0..self.count()?).try_for_each(|_| self.value(kind)),
        }
    }

    /// How many entries follow, each of which takes a byte at least.
    fn count(&mut self) -> Option<usize> {
        let count = if self.has_tags { self.compact_length() } else { self.length::<4>() }?;
        self.counted(count)
    }

    fn counted(&mut self, count: usize) -> Option<usize> {
        self.entries = self.entries.saturating_add(count);
        (count <= self.rest.len() && self.entries <= ENTRIES_MAX).then_some(count)
    }

    fn tags(&mut self) -> Option<()> {
        if !self.has_tags {
            return Some(());
        }
        let count = self.varint()?;
        for _ in 0..self.counted(count)? {
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Some(())
    }

    /// A length of so many bytes; -1 stands for nothing at all.
    fn length<const BYTES: usize>(&mut self) -> Option<usize> {
        let (head, rest) = self.rest.split_first_chunk::<BYTES>()?;
        self.rest = rest;
        if head.iter().all(|byte| *byte == u8::MAX) {
            return Some(0);
        }
        let is_negative = head.first().is_some_and(|byte| byte & 0x80 != 0);
        (!is_negative).then(|| head.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A length that is one more than it is; 0 stands for nothing at all.
    fn compact_length(&mut self) -> Option<usize> {
        self.varint().map(|length| length.saturating_sub(1))
    }

    /// As the codec crate reads it: five bytes at most, and nothing beyond 32 bits.
    fn varint(&mut self) -> Option<usize> {
        let mut number = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        usize::try_from(number).ok()
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests;
