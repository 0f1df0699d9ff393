//! Whether bytes are a CloudEvent in the protobuf format (io.cloudevents.v1.CloudEvent). Called by the envelope, for
//! `application/x-protobuf`, which says nothing about what is inside. Absent on purpose: decoding it.

/// The field numbers of id, source, spec_version and type: the required ones, all strings.
const REQUIRED: std::ops::RangeInclusive<u64> = 1..=4;

/// Whether it is well formed on the wire and has all four required attributes.
pub(super) fn is_cloud_event(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut found = 0_u8;
    while !rest.is_empty() {
        let Some((tag, tail)) = varint(rest) else { return false };
        let (field, wire_type) = (tag >> 3, tag & 7);
        let Some((value, tail)) = value(tail, wire_type) else { return false };
        if REQUIRED.contains(&field) {
            if wire_type != 2 || std::str::from_utf8(value).is_err() {
                return false;
            }
            found |= if value.is_empty() { 0 } else { 1 << field };
        }
        rest = tail;
    }
    found == 0b11110
}

/// One field's content, and what follows it.
fn value(bytes: &[u8], wire_type: u64) -> Option<(&[u8], &[u8])> {
    let length = match wire_type {
        0 => bytes.len() - varint(bytes)?.1.len(),
        1 => 8,
        5 => 4,
        2 => {
            let (length, tail) = varint(bytes)?;
            return tail.split_at_checked(usize::try_from(length).ok()?);
        }
        _ => return None,
    };
    bytes.split_at_checked(length)
}

/// A variable-length number of at most 64 bits, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}
