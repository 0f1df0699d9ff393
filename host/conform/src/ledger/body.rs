//! What a message of the ledger looks like: printable text that names its run, its number, its key and its place within
//! the key, with a digest over all of it. So a message is known again even where an adapter spoils other bytes.

use sha2::{Digest, Sha256};

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) n: u64,
    /// The digest is right.
    pub(super) whole: bool,
}

/// What stands around the text in an event.
const DATA: &str = r#","data":""#;
const END: &str = r#""}"#;

/// A message of about so many bytes.
pub(super) fn write(run: &str, n: u64, key: &str, sequence: u64, bytes: usize) -> String {
    let mut text = format!("{run} {n} {key} {sequence} ");
    let digest_bytes = 64 + 1;
    let padding = bytes.saturating_sub(text.len() + digest_bytes);
    text.extend(('a'..='z').cycle().take(padding));
    let digest = digest(text.as_bytes());
    text.push(' ');
    text.push_str(&digest);
    text
}

/// The same in a CloudEvent with an id of its own.
pub(super) fn event(run: &str, n: u64, text: &str) -> String {
    let head = format!(r#"{{"specversion":"1.0","type":"page","source":"whimbrel-conform","id":"{run}-{n}""#);
    format!("{head}{DATA}{text}{END}")
}

/// What a message says; `None` if it is not of this run.
pub(super) fn read(run: &str, data: &[u8]) -> Option<Page> {
    let text = String::from_utf8_lossy(data);
    let text = text.split_once(DATA).and_then(|(_, rest)| rest.strip_suffix(END)).unwrap_or(&text);
    let n = text.strip_prefix(run)?.strip_prefix(' ')?.split(' ').next()?.parse().ok()?;
    let whole = text.rsplit_once(' ').is_some_and(|(content, proof)| digest(content.as_bytes()) == proof);
    Some(Page { n, whole })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
