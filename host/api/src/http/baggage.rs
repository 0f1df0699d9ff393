//! The W3C baggage of a request (https://www.w3.org/TR/baggage/): looked through as daprd does, and sent back with the
//! answer (pubsub-behaviour 1.3). It goes no further, neither into the event nor to subscribers. Called by `http`.

use http::{HeaderMap, HeaderValue};

use crate::path;

/// The header.
pub(super) const NAME: &str = "baggage";

/// All of it, bytes.
const BYTES_MAX: usize = 8192;

/// One member, bytes.
const MEMBER_BYTES_MAX: usize = 4096;

/// Members.
const MEMBERS_MAX: usize = 180;

/// The baggage as it was given; none if it is empty.
///
/// # Errors
/// It is not well formed, or too much; why.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<&HeaderValue>, String> {
    let Some(given) = headers.get(NAME).filter(|given| !given.is_empty()) else { return Ok(None) };
    let text = given.to_str().map_err(|_| "it is not ASCII".to_owned())?;
    check(text).map(|()| Some(given))
}

fn check(text: &str) -> Result<(), String> {
    if text.len() > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    for (number, text) in text.split(',').enumerate() {
        if number == MEMBERS_MAX {
            return Err(format!("it has more than {MEMBERS_MAX} members"));
        }
        if text.len() > MEMBER_BYTES_MAX || !is_member(text) {
            let number = number + 1;
            return Err(format!(
                "member {number} is not key=value;property, or has more than {MEMBER_BYTES_MAX} bytes"
            ));
        }
    }
    Ok(())
}

/// `key=value`, and properties that are a key alone or the same again, each behind a semicolon.
fn is_member(text: &str) -> bool {
    let mut parts = text.split(';');
    let is_first = parts.next().and_then(|first| first.split_once('=')).is_some_and(is_pair);
    is_first && parts.all(|property| property.split_once('=').map_or_else(|| is_key(property), is_pair))
}

fn is_pair((key, value): (&str, &str)) -> bool {
    let value = value.trim();
    is_key(key) && value.bytes().all(is_value_byte) && path::is_well_escaped(value)
}

/// A token of HTTP.
fn is_key(key: &str) -> bool {
    let key = key.trim();
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_value_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

#[cfg(test)]
mod tests;
