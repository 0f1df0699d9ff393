//! Requests and answers as bytes: each has its length before it, and a number that says which answer is to which
//! request.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::shape;

/// Before a broker has shown that it is one, it may not say more at once.
pub(crate) const GREETING_MAX_BYTES: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;

/// Encodes a request.
///
/// # Errors
/// It cannot be said in this version.
pub(crate) fn encode<R: Request>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: &StrBytes,
) -> Result<Vec<u8>, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let unsaid = |error| format!("a request cannot be said in version {version}: {error}");
    let mut out = vec![0; LENGTH_BYTES];
    header.encode(&mut out, R::header_version(version)).map_err(unsaid)?;
    request.encode(&mut out, version).map_err(unsaid)?;
    let length = i32::try_from(out.len() - LENGTH_BYTES).map_err(|_| "a request is too large".to_owned())?;
    out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// The number of the request that an answer is to.
pub(crate) fn correlation(answer: &[u8]) -> Option<i32> {
    answer.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Decodes an answer.
///
/// # Errors
/// It is not one to this request.
pub(crate) fn decode<R: Request>(mut answer: Bytes, version: i16) -> Result<R::Response, String> {
    let broken = |error| format!("a broken answer: {error}");
    let header_version = R::Response::header_version(version);
    if !shape::is_sound(&answer, R::KEY, version, header_version > 0) {
        return Err("a broken answer: it is cut off, or has not the entries it claims".to_owned());
    }
    ResponseHeader::decode(&mut answer, header_version).map_err(broken)?;
    R::Response::decode(&mut answer, version).map_err(broken)
}

/// Takes what arrives apart.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What is not whole yet.
    partial: Vec<u8>,
    /// What may hold whole ones.
    whole: Bytes,
    max: usize,
}

impl Frames {
    /// Nothing yet. A frame beyond `max` bytes is refused before there is room for it.
    pub(crate) fn new(max: usize) -> Self {
        Self { partial: Vec::new(), whole: Bytes::new(), max }
    }

    /// From now on, frames may be so large.
    pub(crate) fn allow(&mut self, max: usize) {
        self.max = max;
    }

    /// Where what arrives is appended.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.partial
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// This is not Kafka's protocol.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, String> {
        if self.whole.is_empty() && self.partial_is_whole()? {
            self.whole = std::mem::take(&mut self.partial).into();
        }
        let Some(length) = self.length(&self.whole)? else { return Ok(self.put_aside()) };
        if self.whole.len() - LENGTH_BYTES < length {
            return Ok(self.put_aside());
        }
        self.whole.advance(LENGTH_BYTES);
        Ok(Some(self.whole.split_to(length)))
    }

    /// What is left is the beginning of the next one.
    fn put_aside<T>(&mut self) -> Option<T> {
        if !self.whole.is_empty() {
            self.partial.splice(..0, self.whole.iter().copied());
            self.whole.clear();
        }
        None
    }

    fn partial_is_whole(&mut self) -> Result<bool, String> {
        let Some(length) = self.length(&self.partial)? else { return Ok(false) };
        let missing = (length + LENGTH_BYTES).saturating_sub(self.partial.len());
        self.partial.reserve(missing);
        Ok(missing == 0)
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(head) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        match usize::try_from(i32::from_be_bytes(*head)) {
            Ok(length) if length <= self.max => Ok(Some(length)),
            _ => Err(stranger(bytes).to_owned()),
        }
    }
}

/// Who might answer like this.
fn stranger(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'H', b'T', b'T', b'P', ..] => "an HTTP server answers there, not Kafka",
        [0x15 | 0x16, 3, ..] => "the broker speaks TLS there: give caCert, or use a listener without TLS",
        [b'-' | b'+', letter, ..] if letter.is_ascii_alphabetic() => "a Redis server answers there, not Kafka",
        _ => {
            "what answers there does not speak Kafka's protocol, or says more at once than maxMessageBytes has room for"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, String> {
        let mut frames = Frames::new(100);
        let mut found = Vec::new();
        for piece in bytes.chunks(step) {
            frames.room().extend_from_slice(piece);
            while let Some(frame) = frames.next()? {
                found.push(frame.to_vec());
            }
        }
        Ok(found)
    }

    #[test]
    fn in_pieces() {
        let bytes = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01x\0\0\0\x05cut";
        for step in 1..=bytes.len() {
            assert_eq!(frames(bytes, step).unwrap(), [&b"abc"[..], b"", b"x"], "{step}");
        }
    }

    #[test]
    fn strangers() {
        let check = |bytes: &[u8], who: &str| assert!(frames(bytes, 64).unwrap_err().contains(who), "{who}");
        check(b"HTTP/1.1 400 Bad Request\r\n", "HTTP");
        check(b"-ERR unknown command\r\n", "Redis");
        check(b"\x15\x03\x03\0\x02\x02\x28", "TLS");
        check(b"\xff\xff\xff\xff", "Kafka's protocol");
        check(b"\0\0\0\x65", "Kafka's protocol");
    }
}
