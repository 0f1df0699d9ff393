//! The NATS client protocol: lines that begin with a verb, some followed by bytes whose number the line tells.
//!
//! Knows no connection. `watermelon-proto` was tried first. It keeps headers in a map that folds case and cannot be listed,
//! so that metadata could not come back; it refuses an `INFO` whose server advertises a host name, and takes the subject out of
//! permission errors, so that nobody could tell which request was refused.

mod decode;
mod encode;
mod headers;

pub(crate) use decode::{Decoder, Info, Msg, Op};
pub(crate) use encode::{connect, publish, publish_with_headers, subscribe, unsubscribe};
pub(crate) use headers::{Status, fields, status};

/// `PING`, as either side says it.
pub(crate) const PING: &[u8] = b"PING\r\n";

/// `PONG`, as either side says it.
pub(crate) const PONG: &[u8] = b"PONG\r\n";

/// How a header block begins.
pub(crate) const HEADER_VERSION: &str = "NATS/1.0";

#[cfg(test)]
mod tests;
