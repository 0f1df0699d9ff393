//! URL paths: cleaning and unescaping, for the routes of the API and for the routes of apps. Pure text.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// A path with duplicate slashes, `.` and `..` segments and the trailing slash removed, and a slash in front. Escapes stay
/// as they are: `%2F` is no separator (pubsub-behaviour 1.1, 6.1).
pub(crate) fn clean(path: &str) -> Cow<'_, str> {
    let untidy = path.contains("//") || path.contains("/.") || (path.len() > 1 && path.ends_with('/'));
    if path.starts_with('/') && !untidy {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// The target of a request to an app: the route's path cleaned, with what a URL cannot hold escaped, and its query as it is.
pub(crate) fn clean_target(route: &str) -> Cow<'_, str> {
    let (path, query) = route.split_once('?').map_or((route, None), |(path, query)| (path, Some(query)));
    let cleaned = clean(path);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !FORBIDDEN.contains(&byte);
    match query {
        None if cleaned.bytes().all(is_plain) => cleaned,
        None => Cow::Owned(utf8_percent_encode(&cleaned, ESCAPED).to_string()),
        Some(query) => {
            let path = utf8_percent_encode(&cleaned, ESCAPED);
            Cow::Owned(format!("{path}?{}", utf8_percent_encode(query, ESCAPED)))
        }
    }
}

/// Printable characters that a URL's path and query cannot hold.
const FORBIDDEN: &[u8] = b"\"#<>\\^`{|}";

/// The same, with what is not printable; what is not ASCII is escaped anyway.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Whether every `%` is followed by two hexadecimal digits.
pub(crate) fn is_well_escaped(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    true
}

/// Query-style unescaping: `%XX` is a byte and `+` a space. `None`: what comes out is not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    String::from_utf8(unescape_bytes(text)).ok()
}

/// The same for places where a wrong character does no harm: what is not UTF-8 is replaced.
pub(crate) fn unescape_lossy(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    String::from_utf8_lossy(&unescape_bytes(text)).into_owned()
}

fn unescape_bytes(text: &str) -> Vec<u8> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode(spaced.as_bytes()).collect()
}

#[cfg(test)]
mod tests;
