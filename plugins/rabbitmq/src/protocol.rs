//! AMQP 0-9-1 without input or output: requests to bytes, bytes to methods and contents.
//!
//! `amq-protocol-types` knows the types of a field table. Frames and methods are ours, for the crate that has them brings
//! its own network (host/decisions/0009).

mod content;
mod cursor;
mod frame;
mod method;
mod properties;
mod request;
mod table;

pub(crate) use content::{Assembly, Content, Step};
pub(crate) use frame::{Decoder, FRAME_MIN_BYTES, Frame, HEADER, Malformed, heartbeat};
pub(crate) use method::{Closed, Method};
pub(crate) use properties::Properties;
pub(crate) use request::{Declare, Publish, Request, publish};
pub(crate) use table::{Argument, Table};

/// The most bytes one message may have, data and metadata together. RabbitMQ takes 128 MiB, from version 4 on 16 MiB; an
/// adapter has a quarter of a gigabyte in all, and holds a message several times over while it is read.
pub(crate) const MESSAGE_MAX_BYTES: usize = 32 << 20;

/// The most bytes of a short string: a name, a routing key.
pub(crate) const SHORT_MAX_BYTES: usize = 255;

/// The class of messages.
const BASIC: u16 = 60;

#[cfg(test)]
mod tests;
