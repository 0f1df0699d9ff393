//! What an app's answer to an event means (pubsub-behaviour 6.2). Pure; called by `App::deliver`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use whimbrel_pubsub::{HandlerError, Outcome};

use super::lane::Reply;

/// How much of an answer is read, bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The outcome.
pub(crate) fn interpret(reply: &Reply) -> Result<Outcome, HandlerError> {
    if !reply.status.is_success() {
        return Err(HandlerError::Status(reply.status.as_u16()));
    }
    if reply.body.is_empty() {
        return Ok(Outcome::Success);
    }
    // Only the first JSON value counts, and one that does not fit means success, as does a text that is no JSON.
    let mut values = serde_json::Deserializer::from_slice(&reply.body).into_iter::<Said<'_>>();
    let status = match values.next() {
        Some(Ok(Said { status, is_list: false })) => status,
        // Who expects a batch finds none in an event, and has not seen it: acknowledged, it would be lost.
        Some(Ok(Said { is_list: true, .. })) => {
            let what = "the app answered a list of statuses, and this subscription does not ask for bulkSubscribe";
            return Err(HandlerError::Failed(what.into()));
        }
        Some(Err(error)) if error.is_eof() && reply.is_cut => return Err(too_large()),
        Some(Err(_)) | None => return Ok(Outcome::Success),
    };
    match &*status {
        "" | "SUCCESS" => Ok(Outcome::Success),
        "RETRY" => Ok(Outcome::Retry),
        "DROP" => Ok(Outcome::Drop),
        other => Err(unknown(other)),
    }
}

/// What cannot be read to its end.
pub(super) fn too_large() -> HandlerError {
    HandlerError::Failed("the app's answer is larger than 1 MiB".into())
}

/// A status that nobody knows.
pub(super) fn unknown(status: &str) -> HandlerError {
    HandlerError::Failed(format!("the app answered the unknown status {}", shortened(status)))
}

/// Enough of a word for an error text.
fn shortened(word: &str) -> String {
    const CHARS_MAX: usize = 64;
    word.chars().take(CHARS_MAX).collect()
}

/// What a JSON object says, whatever the case of its names.
#[derive(Default)]
struct Said<'a> {
    /// The `status`; empty where there is none.
    status: Cow<'a, str>,
    /// `statuses` in place of a status, which is how a batch is answered (pubsub-behaviour 6.3).
    is_list: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SaidVisitor)
    }
}

struct SaidVisitor;

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a status")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Said::default())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut status, mut statuses) = (Cow::Borrowed(""), false);
        while let Some(Text(name)) = map.next_key()? {
            if name.eq_ignore_ascii_case("status") {
                status = map.next_value::<Option<Text<'de>>>()?.map_or(Cow::Borrowed(""), |Text(status)| status);
            } else {
                statuses |= name.eq_ignore_ascii_case("statuses");
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Said { is_list: statuses && status.is_empty(), status })
    }
}

/// A JSON string, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests;
