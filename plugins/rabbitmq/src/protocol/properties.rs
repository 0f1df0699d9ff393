//! What a message has besides its body.

use super::cursor::Cursor;
use super::frame::{long, short};
use super::{Malformed, table};

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;

/// See the module. Properties that neither Dapr nor we use are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    /// 2: the broker writes the message to disk.
    pub(crate) delivery_mode: u8,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<String>,
    /// Milliseconds after which the broker drops it, as text.
    pub(crate) expiration: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) kind: Option<String>,
}

impl Properties {
    /// Appends the properties to a content header.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let flag = |given: bool, flag: u16| if given { flag } else { 0 };
        let flags = flag(self.content_type.is_some(), CONTENT_TYPE)
            | flag(!self.headers.is_empty(), HEADERS)
            | flag(self.delivery_mode > 0, DELIVERY_MODE)
            | flag(self.priority.is_some(), PRIORITY)
            | flag(self.correlation_id.is_some(), CORRELATION_ID)
            | flag(self.expiration.is_some(), EXPIRATION)
            | flag(self.message_id.is_some(), MESSAGE_ID)
            | flag(self.kind.is_some(), TYPE);
        out.extend_from_slice(&flags.to_be_bytes());
        self.content_type.iter().for_each(|text| short(out, text));
        if !self.headers.is_empty() {
            write_headers(out, &self.headers);
        }
        if self.delivery_mode > 0 {
            out.push(self.delivery_mode);
        }
        out.extend(self.priority);
        for text in [&self.correlation_id, &self.expiration, &self.message_id, &self.kind].into_iter().flatten() {
            short(out, text);
        }
    }

    /// Reads what `write` writes, and what others write.
    pub(super) fn read(rest: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let flags = rest.u16()?;
        let has = |flag: u16| flags & flag != 0;
        let mut properties = Self::default();
        if has(CONTENT_TYPE) {
            properties.content_type = Some(rest.short()?);
        }
        if has(CONTENT_ENCODING) {
            rest.skip_short()?;
        }
        if has(HEADERS) {
            let headers = &mut properties.headers;
            table::texts(rest.long()?, |name, value| headers.push((name.to_owned(), value)))?;
        }
        if has(DELIVERY_MODE) {
            properties.delivery_mode = rest.u8()?;
        }
        if has(PRIORITY) {
            properties.priority = Some(rest.u8()?);
        }
        if has(CORRELATION_ID) {
            properties.correlation_id = Some(rest.short()?);
        }
        if has(REPLY_TO) {
            rest.skip_short()?;
        }
        if has(EXPIRATION) {
            properties.expiration = Some(rest.short()?);
        }
        if has(MESSAGE_ID) {
            properties.message_id = Some(rest.short()?);
        }
        if has(TIMESTAMP) {
            rest.u64()?;
        }
        if has(TYPE) {
            properties.kind = Some(rest.short()?);
        }
        // What follows (user, application and cluster id) is of no use here.
        Ok(properties)
    }
}

/// A table of texts: what `amq-protocol-types` would write, without a copy of each name and value.
fn write_headers(out: &mut Vec<u8>, headers: &[(String, String)]) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let start = out.len();
    for (name, value) in headers {
        short(out, name);
        out.push(b'S');
        long(out, value.as_bytes());
    }
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[length_at..start].copy_from_slice(&length.to_be_bytes());
}
