//! What a broker answers a fetch with: record batches, one after the other. Here they are taken apart by their headers
//! only, and what a subscriber must not see is left out: control records, and what an aborted transaction wrote.
//!
//! Absent on purpose: decoding and decompression (`records`), which wait until there is credit.

use std::collections::HashSet;

use bytes::{Buf, Bytes};

/// Bytes before a batch's length is known.
const LENGTH_END: usize = 12;

/// Bytes of the header of a batch.
const HEADER_BYTES: usize = 61;

/// The format this is about; older ones have been gone from brokers since Kafka 4.
const MAGIC: u8 = 2;

const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// One batch, or a place where there is none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// As the broker stored it; empty where nothing is to be delivered.
    pub(crate) bytes: Bytes,
    /// The offset after its last record.
    pub(crate) end: i64,
}

/// A transaction that came to nothing, as the broker tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer: i64,
    pub(crate) first_offset: i64,
}

/// Splits what was fetched. A batch that is not there to its end is left for the next fetch.
///
/// # Errors
/// It is not in the format.
pub(crate) fn split(mut fetched: Bytes, aborted: &[Aborted]) -> Result<Vec<Batch>, String> {
    let mut aborted: Vec<Aborted> = aborted.to_vec();
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut unwanted: HashSet<i64> = HashSet::new();
    let mut batches: Vec<Batch> = Vec::new();
    while let Some(header) = Header::of(&fetched)? {
        let bytes = fetched.split_to(header.length);
        while aborted.last().is_some_and(|transaction| transaction.first_offset < header.end) {
            unwanted.extend(aborted.pop().map(|transaction| transaction.producer));
        }
        let is_unwanted = header.attributes & TRANSACTIONAL != 0 && unwanted.contains(&header.producer);
        let is_control = header.attributes & CONTROL != 0;
        if is_control {
            // The marker that ends the transaction.
            unwanted.remove(&header.producer);
        }
        let bytes = if is_control || is_unwanted { Bytes::new() } else { bytes };
        batches.push(Batch { bytes, end: header.end });
    }
    Ok(batches)
}

struct Header {
    /// Of the whole batch, in bytes.
    length: usize,
    end: i64,
    attributes: i16,
    producer: i64,
}

impl Header {
    /// The header of the first batch. `None`: it is not all there.
    fn of(fetched: &[u8]) -> Result<Option<Self>, String> {
        let Some(mut header) = fetched.get(..HEADER_BYTES) else { return Ok(None) };
        if header[16] != MAGIC {
            return Err(format!("a record batch has format {}, only {MAGIC} is known", header[16]));
        }
        let base = header.get_i64();
        let rest = usize::try_from(header.get_i32()).map_err(|_| "a record batch has no length".to_owned())?;
        let length = rest.saturating_add(LENGTH_END);
        if length < HEADER_BYTES {
            return Err("a record batch is shorter than its header".to_owned());
        }
        if fetched.len() < length {
            return Ok(None);
        }
        header.advance(4 + 1 + 4);
        let attributes = header.get_i16();
        let last = header.get_i32();
        header.advance(8 + 8);
        let end = base.saturating_add(i64::from(last)).saturating_add(1);
        Ok(Some(Self { length, end, attributes, producer: header.get_i64() }))
    }
}

#[cfg(test)]
mod tests;
