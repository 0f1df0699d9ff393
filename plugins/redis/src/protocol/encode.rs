//! Commands to bytes: arrays of bulk strings.

/// Begins a command of so many parts.
pub(crate) fn array(out: &mut Vec<u8>, parts: usize) {
    head(out, b'*', parts);
}

/// One part of a command.
pub(crate) fn bulk(out: &mut Vec<u8>, part: &[u8]) {
    head(out, b'$', part.len());
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

/// One part of a command that is a number.
pub(crate) fn number(out: &mut Vec<u8>, part: u64) {
    bulk(out, itoa::Buffer::new().format(part).as_bytes());
}

/// A whole command.
pub(crate) fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    array(out, parts.len());
    for part in parts {
        bulk(out, part);
    }
}

fn head(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}
