//! Field tables: the arguments of a declaration, the headers of a message.
//!
//! The types are `amq-protocol-types`'s. It reads one value at a time, and never one that holds others: it would go as
//! deep into them as a peer likes, and we have no use for them.

use amq_protocol_types::generation::gen_field_table;
use amq_protocol_types::parsing::parse_value;
use amq_protocol_types::{AMQPValue, FieldTable};

use super::Malformed;
use super::cursor::Cursor;

/// The most entries of a table that are read.
const ENTRIES_MAX: usize = 4096;

/// Bytes of an entry besides its name and what has no fixed length: lengths, a type, a number.
const ENTRY_BYTES: usize = 16;

const TYPE_TABLE: u8 = b'F';
const TYPE_ARRAY: u8 = b'A';

/// A value that we send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Argument {
    /// A switch.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A number as Dapr's component sends priorities.
    Small(u8),
    /// A text.
    Text(String),
    /// Switches by name.
    Flags(Vec<&'static str>),
}

/// A table that we send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) Vec<(&'static str, Argument)>);

impl Table {
    /// Appends the table to a frame.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut table = FieldTable::default();
        for (name, argument) in &self.0 {
            table.insert((*name).into(), value(argument));
        }
        let mut room = vec![0; self.room_bytes()];
        let context = std::io::Cursor::new(&mut room[..]).into();
        // There is room for all of it, so it cannot fail.
        let written = gen_field_table(&table)(context).map_or(0, |written| written.write.position());
        out.extend_from_slice(&room[..usize::try_from(written).unwrap_or(0)]);
    }

    /// Bytes the table takes, at most.
    fn room_bytes(&self) -> usize {
        let bytes = |(name, argument): &(&str, Argument)| {
            let value = match argument {
                Argument::Flag(_) | Argument::Number(_) | Argument::Small(_) => 0,
                Argument::Text(text) => text.len(),
                Argument::Flags(names) => names.iter().map(|name| name.len() + ENTRY_BYTES).sum(),
            };
            name.len() + value + ENTRY_BYTES
        };
        self.0.iter().map(bytes).sum::<usize>() + ENTRY_BYTES
    }
}

fn value(argument: &Argument) -> AMQPValue {
    match argument {
        Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        Argument::Number(number) => AMQPValue::LongLongInt(*number),
        Argument::Small(number) => AMQPValue::ShortShortUInt(*number),
        Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
        Argument::Flags(names) => {
            let mut table = FieldTable::default();
            for name in names {
                table.insert((*name).into(), AMQPValue::Boolean(true));
            }
            AMQPValue::FieldTable(table)
        }
    }
}

/// Each entry of a table with its value as text. What holds other values, or is nothing, is passed over.
pub(super) fn texts(bytes: &[u8], mut take: impl FnMut(&str, String)) -> Result<(), Malformed> {
    let mut rest = Cursor(bytes);
    for _ in 0..ENTRIES_MAX {
        if rest.0.is_empty() {
            return Ok(());
        }
        let name = rest.short()?;
        match rest.0.first() {
            Some(&(TYPE_TABLE | TYPE_ARRAY)) => {
                rest.u8()?;
                rest.long()?;
            }
            _ => {
                let (left, value) = parse_value(rest.0).map_err(|_| Malformed::Garbage)?;
                rest.0 = left;
                if let Some(text) = text(&value) {
                    take(&name, text);
                }
            }
        }
    }
    Err(Malformed::TooLarge)
}

fn text(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::ShortString(value) => value.to_string(),
        AMQPValue::LongString(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        AMQPValue::ByteArray(value) => String::from_utf8_lossy(value.as_slice()).into_owned(),
        AMQPValue::DecimalValue(_) | AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::Void => {
            return None;
        }
    })
}
