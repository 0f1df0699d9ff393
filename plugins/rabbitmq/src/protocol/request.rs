//! What we say to a broker.

use super::frame::{content, long, method, short};
use super::{Properties, Table};

/// How a declaration is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declare {
    /// It outlives a restart of the broker.
    pub(crate) durable: bool,
    /// It goes when nobody uses it any more.
    pub(crate) auto_delete: bool,
}

/// The methods a client sends, but for `basic.publish`.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    StartOk { properties: &'a Table, mechanism: &'a str, response: &'a [u8] },
    TuneOk { channel_max: u16, frame_max: u32, heartbeat: u16 },
    Open { vhost: &'a str },
    Close { code: u16, text: &'a str },
    CloseOk,
    ChannelOpen,
    FlowOk(bool),
    ChannelClose,
    ChannelCloseOk,
    Exchange { name: &'a str, kind: &'a str, declare: Declare },
    Queue { name: &'a str, declare: Declare, arguments: &'a Table },
    Count { queue: &'a str },
    Bind { queue: &'a str, exchange: &'a str, routing_key: &'a str },
    Qos { prefetch: u16 },
    Consume { queue: &'a str, tag: &'a str },
    Cancel { tag: &'a str },
    Ack { tag: u64, multiple: bool },
    Nack { tag: u64, multiple: bool, requeue: bool },
    ConfirmSelect,
}

/// Where a message goes, and what it is.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) properties: &'a Properties,
    pub(crate) body: &'a [u8],
    /// Without a queue to go to it comes back.
    pub(crate) mandatory: bool,
}

/// Appends a message in frames of at most `frame_max` bytes.
pub(crate) fn publish(out: &mut Vec<u8>, channel: u16, frame_max: usize, message: &Publish<'_>) {
    method(out, channel, (60, 40), |out| {
        out.extend_from_slice(&[0, 0]);
        short(out, message.exchange);
        short(out, message.routing_key);
        out.push(u8::from(message.mandatory));
    });
    content(out, channel, frame_max, message.body, |out| message.properties.write(out));
}

impl Request<'_> {
    /// Appends the request as one frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16) {
        method(out, channel, self.id(), |out| self.arguments(out));
    }

    fn id(&self) -> (u16, u16) {
        match self {
            Self::StartOk { .. } => (10, 11),
            Self::TuneOk { .. } => (10, 31),
            Self::Open { .. } => (10, 40),
            Self::Close { .. } => (10, 50),
            Self::CloseOk => (10, 51),
            Self::ChannelOpen => (20, 10),
            Self::FlowOk(_) => (20, 21),
            Self::ChannelClose => (20, 40),
            Self::ChannelCloseOk => (20, 41),
            Self::Exchange { .. } => (40, 10),
            Self::Queue { .. } | Self::Count { .. } => (50, 10),
            Self::Bind { .. } => (50, 20),
            Self::Qos { .. } => (60, 10),
            Self::Consume { .. } => (60, 20),
            Self::Cancel { .. } => (60, 30),
            Self::Ack { .. } => (60, 80),
            Self::Nack { .. } => (60, 120),
            Self::ConfirmSelect => (85, 10),
        }
    }

    fn arguments(&self, out: &mut Vec<u8>) {
        match self {
            Self::StartOk { properties, mechanism, response } => {
                properties.write(out);
                short(out, mechanism);
                long(out, response);
                short(out, "en_US");
            }
            Self::TuneOk { channel_max, frame_max, heartbeat } => {
                out.extend_from_slice(&channel_max.to_be_bytes());
                out.extend_from_slice(&frame_max.to_be_bytes());
                out.extend_from_slice(&heartbeat.to_be_bytes());
            }
            Self::Open { vhost } => {
                short(out, vhost);
                out.extend_from_slice(&[0, 0]);
            }
            Self::Close { code, text } => close(out, *code, text),
            Self::ChannelClose => close(out, 200, "goodbye"),
            Self::CloseOk | Self::ChannelCloseOk => {}
            // A reserved text; `nowait` off.
            Self::ChannelOpen | Self::ConfirmSelect => out.push(0),
            Self::FlowOk(active) => out.push(u8::from(*active)),
            Self::Exchange { name, kind, declare } => {
                out.extend_from_slice(&[0, 0]);
                short(out, name);
                short(out, kind);
                out.push(bits(&[false, declare.durable, declare.auto_delete]));
                Table::default().write(out);
            }
            Self::Queue { name, declare, arguments } => {
                out.extend_from_slice(&[0, 0]);
                short(out, name);
                out.push(bits(&[false, declare.durable, false, declare.auto_delete]));
                arguments.write(out);
            }
            Self::Count { queue } => count(out, queue),
            Self::Bind { queue, exchange, routing_key } => {
                out.extend_from_slice(&[0, 0]);
                short(out, queue);
                short(out, exchange);
                short(out, routing_key);
                out.push(0);
                Table::default().write(out);
            }
            Self::Qos { prefetch } => {
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&prefetch.to_be_bytes());
                out.push(0);
            }
            Self::Consume { queue, tag } => {
                out.extend_from_slice(&[0, 0]);
                short(out, queue);
                short(out, tag);
                out.push(0);
                Table::default().write(out);
            }
            Self::Cancel { tag } => {
                short(out, tag);
                out.push(0);
            }
            Self::Ack { tag, multiple } => {
                out.extend_from_slice(&tag.to_be_bytes());
                out.push(u8::from(*multiple));
            }
            Self::Nack { tag, multiple, requeue } => {
                out.extend_from_slice(&tag.to_be_bytes());
                out.push(bits(&[*multiple, *requeue]));
            }
        }
    }
}

/// A passive declaration: the queue is not made, and how many messages wait in it is told.
fn count(out: &mut Vec<u8>, queue: &str) {
    out.extend_from_slice(&[0, 0]);
    short(out, queue);
    out.push(bits(&[true]));
    Table::default().write(out);
}

fn close(out: &mut Vec<u8>, code: u16, text: &str) {
    out.extend_from_slice(&code.to_be_bytes());
    short(out, text);
    // No method of the broker's is to blame.
    out.extend_from_slice(&[0; 4]);
}

/// Switches of one method share bytes, the first in the lowest bit.
fn bits(flags: &[bool]) -> u8 {
    flags.iter().enumerate().map(|(at, flag)| u8::from(*flag) << at).sum()
}
