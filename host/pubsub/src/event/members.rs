//! The members of one JSON object, found without decoding them: where each name and value stands in the text. Called by
//! `Event` for what arrives, and by `envelope` for the CloudEvents it passes through.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// What an envelope of ours has, rounded up: one allocation for the index of most events.
const MEMBERS_GUESS: usize = 16;

/// A piece of text: in the source, or decoded.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    /// Where it stands in the source: a name without its quotes, a value as it is written.
    Span(Range<usize>),
    /// Decoded.
    Own(Box<str>),
}

/// One member of an object.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: Text,
    /// Its value.
    pub(crate) value: Text,
}

impl Member {
    /// Whether this is its name.
    pub(crate) fn is(&self, name: &str, source: &str) -> bool {
        self.name(source) == name
    }

    /// Its name.
    pub(crate) fn name<'a>(&'a self, source: &'a str) -> &'a str {
        match &self.name {
            Text::Span(span) => source.get(span.clone()).unwrap_or_default(),
            Text::Own(name) => name,
        }
    }

    /// Its value as it is written; `null` if it is decoded already.
    pub(crate) fn raw<'a>(&self, source: &'a str) -> &'a str {
        match &self.value {
            Text::Span(span) => source.get(span.clone()).unwrap_or_default(),
            Text::Own(_) => "null",
        }
    }

    /// Decodes its value if that is a string with escapes.
    pub(crate) fn decode(&mut self, source: &str) {
        let raw = self.raw(source);
        if raw.starts_with('"')
            && let Cow::Owned(text) = unquote(raw)
        {
            self.value = Text::Own(text.into_boxed_str());
        }
    }
}

/// The text of a JSON string. A half of a surrogate pair, which JSON can write and Unicode does not have, is left as it
/// is written.
pub(crate) fn unquote(raw: &str) -> Cow<'_, str> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// The members of the JSON object that a text begins with, and what follows it.
///
/// # Errors
/// There is no JSON object; the text says what there is.
pub(crate) fn members(source: &str) -> Result<(Vec<Member>, &str), String> {
    let mut json = serde_json::Deserializer::from_str(source).into_iter::<&RawValue>();
    // Two passes over what is not an object are cheap, and tell its type; an object is read once.
    let first = source.trim_start_matches([' ', '\t', '\r', '\n']);
    if !first.starts_with('{') {
        return Err(match json.next() {
            None => "EOF".to_owned(),
            Some(Err(error)) => error.to_string(),
            // The text of Go's decoder: clients of Dapr have it in their tests.
            Some(Ok(value)) => format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                type_name(value.get())
            ),
        });
    }
    let mut json = serde_json::Deserializer::from_str(source);
    let (members, end) = json.deserialize_map(Index { source }).map_err(|error| error.to_string())?;
    let rest = source.get(end..).and_then(|rest| rest.split_once('}')).map_or("", |(_, rest)| rest);
    Ok((members, rest))
}

fn type_name(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        Some(b'n') => "null",
        _ => "number",
    }
}

struct Index<'a> {
    source: &'a str,
}

impl Index<'_> {
    /// Where a slice of the source stands in it.
    fn span(&self, slice: &str) -> Range<usize> {
        let start = slice.as_ptr().addr().saturating_sub(self.source.as_ptr().addr());
        start..start + slice.len()
    }
}

impl<'de> Visitor<'de> for Index<'de> {
    /// The members, and where the last value ends.
    type Value = (Vec<Member>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(MEMBERS_GUESS);
        let mut end = 0;
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let name = match unquote(name.get()) {
                Cow::Borrowed(name) => Text::Span(self.span(name)),
                Cow::Owned(name) => Text::Own(name.into_boxed_str()),
            };
            let value = self.span(value.get());
            end = value.end;
            members.push(Member { name, value: Text::Span(value) });
        }
        Ok((members, end))
    }
}
