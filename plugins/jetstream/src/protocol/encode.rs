//! What a client says.

use serde::Serialize;

/// The `CONNECT` line, with whatever its options are.
pub(crate) fn connect(out: &mut Vec<u8>, options: &impl Serialize) {
    out.extend_from_slice(b"CONNECT ");
    // Writing plain strings and flags into memory cannot fail.
    serde_json::to_writer(&mut *out, options).ok();
    out.extend_from_slice(b"\r\n");
}

/// `SUB`, with a queue group or without.
pub(crate) fn subscribe(out: &mut Vec<u8>, subject: &str, group: Option<&str>, sid: u64) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject.as_bytes());
    if let Some(group) = group {
        out.push(b' ');
        out.extend_from_slice(group.as_bytes());
    }
    number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// `UNSUB`.
pub(crate) fn unsubscribe(out: &mut Vec<u8>, sid: u64) {
    out.extend_from_slice(b"UNSUB");
    number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// `PUB`. Subjects must be sound: nothing is checked here.
pub(crate) fn publish(out: &mut Vec<u8>, subject: &str, reply: Option<&str>, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    addresses(out, subject, reply);
    number(out, payload.len() as u64);
    body(out, &[payload]);
}

/// `HPUB`, with a whole header block.
pub(crate) fn publish_with_headers(out: &mut Vec<u8>, subject: &str, reply: Option<&str>, head: &[u8], payload: &[u8]) {
    out.extend_from_slice(b"HPUB ");
    addresses(out, subject, reply);
    number(out, head.len() as u64);
    number(out, (head.len() + payload.len()) as u64);
    body(out, &[head, payload]);
}

fn addresses(out: &mut Vec<u8>, subject: &str, reply: Option<&str>) {
    out.extend_from_slice(subject.as_bytes());
    if let Some(reply) = reply {
        out.push(b' ');
        out.extend_from_slice(reply.as_bytes());
    }
}

fn body(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(b"\r\n");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
