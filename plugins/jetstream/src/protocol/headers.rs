//! Header blocks: a line with the version and sometimes a status, then `name: value` lines, then an empty one.

use super::HEADER_VERSION;

/// What the server itself has to say, in place of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status<'a> {
    pub(crate) code: u16,
    pub(crate) text: &'a str,
}

/// The status in a header block, if there is one.
pub(crate) fn status(head: &[u8]) -> Option<Status<'_>> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix(HEADER_VERSION)?.trim();
    let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(Status { code: code.parse().ok()?, text: text.trim() })
}

/// Names and values. A line that is none is passed over: another client may have written it.
pub(crate) fn fields(head: &[u8]) -> impl Iterator<Item = (&str, std::borrow::Cow<'_, str>)> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..)?;
        Some((std::str::from_utf8(name).ok()?, String::from_utf8_lossy(value.trim_ascii())))
    })
}
