//! What a broker says to us.

use super::cursor::Cursor;
use super::{Malformed, table};

/// Why a broker closed a channel or the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// AMQP's reply code, for example 406.
    pub(crate) code: u16,
    /// What the broker says.
    pub(crate) text: String,
}

/// The methods a client may be sent, with what we use of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    /// The greeting: the broker's name and version, and the mechanisms it knows, with spaces between.
    Start { product: String, mechanisms: String },
    /// It wants more proof than one answer.
    Secure,
    /// Its limits; 0 stands for none. The heartbeat is in seconds.
    Tune { channel_max: u16, frame_max: u32, heartbeat: u16 },
    /// The connection is open.
    OpenOk,
    /// It ends the connection.
    Close(Closed),
    /// It has ended.
    CloseOk,
    /// It takes no messages for now.
    Blocked(String),
    /// It takes messages again.
    Unblocked,
    /// A channel is open.
    ChannelOpenOk,
    /// It wants a channel to hold (false) or to go on.
    Flow(bool),
    /// It ends a channel.
    ChannelClose(Closed),
    /// A channel has ended.
    ChannelCloseOk,
    /// A queue is there, with so many messages that nobody was sent yet.
    Queue { messages: u32 },
    /// The answer to a request that has nothing to tell: a declaration, a binding, a setting.
    Done,
    /// It ends a consumer by itself.
    Cancel,
    /// A content follows that could not be routed.
    Return { code: u16, text: String, exchange: String },
    /// A content follows for a consumer.
    Deliver { tag: u64, redelivered: bool, exchange: String },
    /// Messages are safe.
    Ack { tag: u64, multiple: bool },
    /// Messages were refused.
    Nack { tag: u64, multiple: bool },
}

impl Method {
    /// Reads the payload of a method frame.
    ///
    /// # Errors
    /// It is none that a client may be sent.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Cursor(payload);
        let id = (rest.u16()?, rest.u16()?);
        Ok(match id {
            (60, 60) => deliver(&mut rest)?,
            (60, 80) => Self::Ack { tag: rest.u64()?, multiple: rest.u8()? & 1 != 0 },
            (60, 120) => Self::Nack { tag: rest.u64()?, multiple: rest.u8()? & 1 != 0 },
            (60, 50) => Self::Return { code: rest.u16()?, text: rest.short()?, exchange: rest.short()? },
            (60, 30) => Self::Cancel,
            (10, 10) => start(&mut rest)?,
            (10, 20) => Self::Secure,
            (10, 30) => Self::Tune { channel_max: rest.u16()?, frame_max: rest.u32()?, heartbeat: rest.u16()? },
            (10, 41) => Self::OpenOk,
            (10, 50) => Self::Close(closed(&mut rest)?),
            (10, 51) => Self::CloseOk,
            (10, 60) => Self::Blocked(rest.short()?),
            (10, 61) => Self::Unblocked,
            (20, 11) => Self::ChannelOpenOk,
            (20, 20) => Self::Flow(rest.u8()? & 1 != 0),
            (20, 40) => Self::ChannelClose(closed(&mut rest)?),
            (20, 41) => Self::ChannelCloseOk,
            (50, 11) => {
                rest.skip_short()?;
                Self::Queue { messages: rest.u32()? }
            }
            // exchange.declare, queue.bind, basic.qos, basic.consume, basic.cancel, confirm.select
            (40, 11) | (50, 21) | (60, 11 | 21 | 31) | (85, 11) => Self::Done,
            _ => return Err(Malformed::Garbage),
        })
    }
}

fn deliver(rest: &mut Cursor<'_>) -> Result<Method, Malformed> {
    // There is one consumer on a channel.
    rest.skip_short()?;
    Ok(Method::Deliver { tag: rest.u64()?, redelivered: rest.u8()? & 1 != 0, exchange: rest.short()? })
}

fn start(rest: &mut Cursor<'_>) -> Result<Method, Malformed> {
    let (_major, _minor) = (rest.u8()?, rest.u8()?);
    let (mut name, mut version) = (String::new(), String::new());
    table::texts(rest.long()?, |key, value| match key {
        "product" => name = value,
        "version" => version = value,
        _ => {}
    })?;
    let mechanisms = String::from_utf8_lossy(rest.long()?).into_owned();
    Ok(Method::Start { product: format!("{name} {version}").trim().to_owned(), mechanisms })
}

fn closed(rest: &mut Cursor<'_>) -> Result<Closed, Malformed> {
    Ok(Closed { code: rest.u16()?, text: rest.short()? })
}
