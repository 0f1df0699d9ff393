//! Writes one JSON object, member by member, into one buffer. Called by the envelope. Absent on purpose: nesting.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Names, quotes, the time and the id of an envelope, with a margin: about 330 bytes.
const FRAME_BYTES: usize = 384;

/// One JSON object on its way.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// An object whose values take about so many bytes.
    pub(super) fn with_room(values_bytes: usize) -> Self {
        Self(Vec::with_capacity(FRAME_BYTES + values_bytes))
    }

    /// A member that is a string.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.string(value);
    }

    /// A member whose value is JSON already.
    pub(super) fn raw(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.0.extend_from_slice(value.as_bytes());
    }

    /// A member of somebody else's, whose name may hold anything and whose value is JSON already.
    pub(super) fn foreign(&mut self, name: &str, value: &str) {
        self.separate();
        self.string(name);
        self.0.push(b':');
        self.0.extend_from_slice(value.as_bytes());
    }

    /// A member that is bytes.
    pub(super) fn base64(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        let start = self.0.len();
        self.0.resize(start + value.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(value, &mut self.0[start..]).unwrap_or_default();
        self.0.truncate(start + written);
        self.0.push(b'"');
    }

    /// The object.
    pub(super) fn finish(mut self) -> Bytes {
        self.0.extend_from_slice(if self.0.is_empty() { b"{}" } else { b"}" });
        Bytes::from(self.0)
    }

    fn separate(&mut self) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
    }

    /// A name of ours: nothing in it needs an escape.
    fn name(&mut self, name: &'static str) {
        self.separate();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        // A string written into memory cannot fail; if it did, an empty one keeps the object whole.
        if serde_json::to_writer(&mut self.0, text).is_err() {
            self.0.extend_from_slice(b"\"\"");
        }
    }
}
