//! Record batches, format 2 (Kafka 0.11 and later).
//!
//! The codec crate has an encoder and a decoder, too. Its decoder makes room for as many records and headers as the
//! bytes claim to have, and whoever may write to a topic may write any claim: that would end the component.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec;
use crate::config::Codec;

/// Bytes of a batch before its records.
pub(crate) const BATCH_HEADER_BYTES: usize = 61;

/// Where the fields of a batch's header are.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const PRODUCER_AT: usize = 43;
const RECORDS_AT: usize = BATCH_HEADER_BYTES;

/// The length counts from here.
const LENGTH_FROM: usize = 12;

/// The only format spoken.
const MAGIC: u8 = 2;

const CODEC_BITS: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const CONTROL: i16 = 1 << 5;

/// Fewer bytes than any record has: its claims are checked against what is there.
const RECORD_BYTES_MIN: usize = 7;

/// One record, without what it shares with its batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Bytes>,
    /// `None`: a tombstone.
    pub(crate) value: Option<Bytes>,
    /// Names are UTF-8 by Kafka's rules, and not checked here.
    pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What makes a batch unmistakable for a partition: who wrote it, and as which in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    /// The number of its first record.
    pub(crate) sequence: i32,
}

impl Stamp {
    /// For batches that may be stored twice.
    pub(crate) const NONE: Self = Self { producer: -1, epoch: -1, sequence: -1 };
}

/// An encoded batch.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    bytes: Bytes,
    /// How many records it has.
    pub(crate) count: usize,
}

impl Batch {
    /// Its size.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Its bytes, stamped.
    pub(crate) fn stamped(&mut self, stamp: Stamp) -> Bytes {
        let bytes = std::mem::take(&mut self.bytes);
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        if let Some(mut fields) = bytes.get_mut(PRODUCER_AT..) {
            fields.put_i64(stamp.producer);
            fields.put_i16(stamp.epoch);
            fields.put_i32(stamp.sequence);
        }
        seal(&mut bytes);
        self.bytes = bytes.freeze();
        self.bytes.clone()
    }
}

/// Writes the checksum.
fn seal(batch: &mut [u8]) {
    let (head, content) = batch.split_at_mut(ATTRIBUTES_AT);
    let crc = crc32c::crc32c(content);
    if let Some(mut field) = head.get_mut(CRC_AT..) {
        field.put_u32(crc);
    }
}

/// Makes one batch. There must be at least one record. Offsets are the broker's to give.
///
/// # Errors
/// It cannot be compressed, or is larger than the format allows.
pub(crate) fn encode(records: &[Record], codec: Codec) -> Result<Batch, String> {
    let first = records.first().map_or(0, |record| record.timestamp);
    let last = records.iter().map(|record| record.timestamp).max().unwrap_or(first);
    let too_large = |_| "too large for a record batch".to_owned();
    let count = i32::try_from(records.len()).map_err(too_large)?;
    let mut body = BytesMut::with_capacity(RECORDS_AT + records.iter().map(record_size).sum::<usize>());
    body.put_bytes(0, RECORDS_AT);
    for (delta, record) in (0..).zip(records) {
        put_record(&mut body, record, delta, record.timestamp - first);
    }
    if codec != Codec::None {
        let compressed = codec::compress(codec, &body[RECORDS_AT..])?;
        body.truncate(RECORDS_AT);
        body.extend_from_slice(&compressed);
    }
    let length = i32::try_from(body.len() - LENGTH_FROM).map_err(too_large)?;
    let mut head = &mut body[..RECORDS_AT];
    head.put_i64(0);
    head.put_i32(length);
    head.put_i32(-1); // The leader's epoch is the broker's to write.
    head.put_u8(MAGIC);
    head.put_u32(0);
    head.put_i16(codec::number(codec));
    head.put_i32(count - 1);
    head.put_i64(first);
    head.put_i64(last);
    head.put_i64(Stamp::NONE.producer);
    head.put_i16(Stamp::NONE.epoch);
    head.put_i32(Stamp::NONE.sequence);
    head.put_i32(count);
    seal(&mut body);
    Ok(Batch { bytes: body.freeze(), count: records.len() })
}

/// At most so many bytes does a record take in a batch.
pub(crate) fn record_size(record: &Record) -> usize {
    const LENGTHS: usize = 32;
    const HEADER_LENGTHS: usize = 10;
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|(name, value)| name.len() + length(value) + HEADER_LENGTHS);
    LENGTHS + length(&record.key) + length(&record.value) + headers.sum::<usize>()
}

fn put_record(out: &mut BytesMut, record: &Record, offset_delta: i64, time_delta: i64) {
    let mut body = varint_len(time_delta) + varint_len(offset_delta) + 1;
    body += bytes_len(record.key.as_deref()) + bytes_len(record.value.as_deref());
    body += varint_len(int(record.headers.len()));
    for (name, value) in &record.headers {
        body += bytes_len(Some(name)) + bytes_len(value.as_deref());
    }
    put_varint(out, int(body));
    out.put_u8(0);
    put_varint(out, time_delta);
    put_varint(out, offset_delta);
    put_bytes(out, record.key.as_deref());
    put_bytes(out, record.value.as_deref());
    put_varint(out, int(record.headers.len()));
    for (name, value) in &record.headers {
        put_bytes(out, Some(name));
        put_bytes(out, value.as_deref());
    }
}

fn int(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| int(bytes.len())));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint_len(int(bytes.len())) + bytes.len())
}

/// Numbers near 0 are short, whatever their sign.
fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

fn put_varint(out: &mut BytesMut, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        out.put_u8(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.put_u8(u8::try_from(rest).unwrap_or(0));
}

fn varint_len(number: i64) -> usize {
    let bits = 64 - zigzag(number).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

/// What a fetch brought of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// In the order of their offsets, none before the one that was asked for. No control records.
    pub(crate) records: Vec<Record>,
    /// Where the next fetch begins: behind the last whole batch, also where compaction left holes.
    pub(crate) next_offset: i64,
}

/// Reads the `records` of one partition in a fetch response. What is cut off at the end, and what follows a broken
/// batch, is left for the next fetch.
///
/// # Errors
/// The first batch is broken; the text says how.
pub(crate) fn read(mut bytes: Bytes, from_offset: i64) -> Result<Fetched, String> {
    let mut fetched = Fetched { records: Vec::new(), next_offset: from_offset };
    let mut sound = 0;
    while let Some(batch) = next_batch(&mut bytes) {
        match read_batch(&batch, from_offset, &mut fetched.records) {
            Ok(next_offset) => fetched.next_offset = fetched.next_offset.max(next_offset),
            Err(_) if sound > 0 => break,
            Err(why) => return Err(why),
        }
        sound += 1;
    }
    Ok(fetched)
}

/// Takes a whole batch off the front.
fn next_batch(bytes: &mut Bytes) -> Option<Bytes> {
    let length = i32::from_be_bytes(bytes.get(LENGTH_AT..LENGTH_FROM)?.try_into().ok()?);
    let length = LENGTH_FROM.checked_add(usize::try_from(length).ok()?)?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// Reads one batch, and returns the offset behind it.
fn read_batch(batch: &Bytes, from_offset: i64, records: &mut Vec<Record>) -> Result<i64, String> {
    match batch.get(MAGIC_AT) {
        Some(&MAGIC) if batch.len() >= RECORDS_AT => {}
        Some(magic) if *magic < MAGIC => {
            return Err(format!("a batch of format {magic}: only format {MAGIC} (Kafka 0.11 and later) is read"));
        }
        _ => return Err("a batch with a broken header".to_owned()),
    }
    let mut head = batch.slice(..RECORDS_AT);
    let base = head.get_i64();
    head.advance(CRC_AT - LENGTH_AT);
    let crc = head.get_u32();
    if crc32c::crc32c(&batch[ATTRIBUTES_AT..]) != crc {
        return Err(format!("the checksum of the batch at offset {base} is wrong"));
    }
    let attributes = head.get_i16();
    let next_offset = base.saturating_add(i64::from(head.get_i32())).saturating_add(1);
    let (first, last) = (head.get_i64(), head.get_i64());
    head.advance(RECORDS_AT - PRODUCER_AT - 4);
    let count = usize::try_from(head.get_i32()).unwrap_or(0);
    if attributes & CONTROL != 0 || next_offset <= from_offset {
        return Ok(next_offset);
    }
    let body = codec::decompress(attributes & CODEC_BITS, batch.slice(RECORDS_AT..))?;
    if count > body.len() / RECORD_BYTES_MIN {
        return Err(format!("the batch at offset {base} has fewer records than it claims"));
    }
    let fixed_time = (attributes & LOG_APPEND_TIME != 0).then_some(last);
    let mut cursor = Cursor(body);
    let before = records.len();
    for _ in 0..count {
        match cursor.record(base, first) {
            Some(record) if record.offset < from_offset => {}
            Some(mut record) => {
                record.timestamp = fixed_time.unwrap_or(record.timestamp);
                records.push(record);
            }
            None => {
                records.truncate(before);
                return Err(format!("a broken record in the batch at offset {base}"));
            }
        }
    }
    Ok(next_offset)
}

/// Reads what a record is made of. `None`: it is not there.
struct Cursor(Bytes);

impl Cursor {
    fn record(&mut self, base: i64, first: i64) -> Option<Record> {
        let size = self.length()??;
        let mut body = Self((size <= self.0.len()).then(|| self.0.split_to(size))?);
        body.0.try_get_u8().ok()?;
        let timestamp = first.checked_add(body.varint()?)?;
        let offset = base.checked_add(body.varint()?)?;
        let (key, value) = (body.bytes()?, body.bytes()?);
        let headers = body.length()??;
        // Each takes two bytes at least.
        let mut pairs = Vec::with_capacity(headers.min(body.0.len() / 2));
        for _ in 0..headers {
            pairs.push((body.bytes()??, body.bytes()?));
        }
        Some(Record { offset, timestamp, key, value, headers: pairs })
    }

    fn varint(&mut self) -> Option<i64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.0.try_get_u8().ok()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        None
    }

    /// A length; the inner `None`: it stands for nothing at all.
    fn length(&mut self) -> Option<Option<usize>> {
        match self.varint()? {
            -1 => Some(None),
            length => usize::try_from(length).ok().map(Some),
        }
    }

    fn bytes(&mut self) -> Option<Option<Bytes>> {
        match self.length()? {
            None => Some(None),
            Some(length) => (length <= self.0.len()).then(|| Some(self.0.split_to(length))),
        }
    }
}
