//! Messages as Kafka stores them: records, in batches.
//!
//! `batch` is the format, `codec` what batches are compressed with, `message` what the host's messages look like in
//! records and back. None of them knows a connection. Absent on purpose: message sets older than batches (Kafka 0.10),
//! schemas, and transactions beyond passing over their markers.

mod batch;
mod codec;
mod message;
#[cfg(test)]
mod tests;

pub(crate) use batch::{BATCH_HEADER_BYTES, Batch, Record, Stamp, encode, read, record_size};
pub(crate) use message::{to_delivery_message, to_record};
