//! A CloudEvent as it travels: the bytes as they were stored, and an index of the members in them. Made by
//! `envelope::unwrap`, read by routes, handlers and apps.
//!
//! Nothing is re-encoded: what this host does not know (nested extensions, integers beyond 2^53, the order of members)
//! reaches the subscriber as it was published. Values are decoded when somebody asks for them. Absent on purpose: a
//! way to change an event.

mod members;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use whimbrel_resources::Fact;

use crate::broker::Metadata;
use crate::trace::{Trace, TraceParent};

pub(crate) use members::{Member, Text, members, unquote};

/// The attributes that have an accessor of their own, and the two members for data. All others are extensions.
const KNOWN: [&str; 9] =
    ["id", "source", "type", "specversion", "datacontenttype", "subject", "time", "data", "data_base64"];

/// Where a trace may be found, in the event or in the message's metadata.
const TRACE: [&str; 3] = ["traceid", "traceparent", "tracestate"];

/// A CloudEvent, from whichever of the three encodings it arrived in.
#[derive(Clone)]
pub struct Event {
    /// What an HTTP app gets.
    body: Bytes,
    /// What `members` points into. UTF-8; the body itself wherever that is.
    text: Bytes,
    members: Vec<Member>,
    /// The body is the data (binary mode), not the event.
    binary: bool,
}

impl Event {
    /// An event in the JSON format: exactly one JSON object. Trace attributes that it lacks are taken from the
    /// metadata.
    ///
    /// # Errors
    /// It is not a JSON object; the text says why.
    pub fn structured(body: Bytes, metadata: &Metadata) -> Result<Self, String> {
        // A body with a broken character in it is delivered as it is; the attributes are those of a tolerant reader.
        let text = match std::str::from_utf8(&body) {
            Ok(_) => body.clone(),
            Err(_) => Bytes::from(tolerant(&body)),
        };
        let source = std::str::from_utf8(&text).unwrap_or_default();
        let (mut members, rest) = members(source)?;
        if !rest.trim_start_matches([' ', '\t', '\r', '\n']).is_empty() {
            return Err("something follows the JSON object".to_owned());
        }
        members.iter_mut().filter(|member| !member.is("data", source)).for_each(|member| member.decode(source));
        let mut event = Self { body, text, members, binary: false };
        event.add_trace(metadata);
        Ok(event)
    }

    /// An event in binary mode: attributes in the metadata under `ce_`, the message's bytes are the data.
    pub(crate) fn binary(body: Bytes, content_type: &str, metadata: &Metadata) -> Self {
        let mut event = Self { body, text: Bytes::new(), members: Vec::new(), binary: true };
        event.add("datacontenttype", content_type);
        for (name, value) in metadata {
            if let Some(attribute) = name.get(..3).filter(|prefix| prefix.eq_ignore_ascii_case("ce_")) {
                event.add(&name[attribute.len()..].to_ascii_lowercase(), value);
            }
        }
        event.add_trace(metadata);
        event
    }

    /// The body an HTTP app gets: the event in the JSON format as it was stored, or the data itself in binary mode.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The event in the JSON format, for a place where anything else would spoil what stands beside it: as it was stored,
    /// save that bytes which are no UTF-8 are replaced. In binary mode it is put together here.
    #[must_use]
    pub fn json(&self) -> Cow<'_, str> {
        if !self.binary {
            return Cow::Borrowed(std::str::from_utf8(&self.text).unwrap_or("null"));
        }
        let text = |text: &Text| serde_json::Value::from(self.text_of(text));
        let members = self.members.iter().map(|member| (self.text_of(&member.name).to_owned(), text(&member.value)));
        let data = ("data_base64".to_owned(), STANDARD.encode(&self.body).into());
        Cow::Owned(serde_json::Value::Object(members.chain([data]).collect()).to_string())
    }

    /// Any attribute, as text: a string's own, the JSON text of everything else. `None`: absent or `null`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute_of(self.value(name)?)
    }

    fn attribute_of<'a>(&'a self, value: &'a Text) -> Option<&'a str> {
        match value {
            Text::Own(text) => Some(text),
            Text::Span(span) => match self.slice(span) {
                "null" => None,
                raw => Some(raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw)),
            },
        }
    }

    /// `id`; empty if there is none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.attribute("id").unwrap_or_default()
    }

    /// `source`; empty if there is none.
    #[must_use]
    pub fn source(&self) -> &str {
        self.attribute("source").unwrap_or_default()
    }

    /// `type`; empty if there is none.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.attribute("type").unwrap_or_default()
    }

    /// `specversion`; empty if there is none.
    #[must_use]
    pub fn spec_version(&self) -> &str {
        self.attribute("specversion").unwrap_or_default()
    }

    /// `datacontenttype`.
    #[must_use]
    pub fn data_content_type(&self) -> Option<&str> {
        self.attribute("datacontenttype")
    }

    /// `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.attribute("subject")
    }

    /// `time`, as it was written.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.attribute("time")
    }

    /// `expiration`, as it was written.
    #[must_use]
    pub fn expiration(&self) -> Option<&str> {
        self.attribute("expiration")
    }

    /// `topic`: where it was published, which a dead-letter topic is not.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.attribute("topic")
    }

    /// What the event says about its trace: `traceparent`, else `traceid`, valid or not, empty or not. `None`: it has
    /// neither attribute.
    #[must_use]
    pub fn trace_parent(&self) -> Option<&str> {
        let (parent, id) = (self.attribute("traceparent"), self.attribute("traceid"));
        parent.filter(|parent| !parent.is_empty()).or(id).or(parent)
    }

    /// The trace that what the subscriber publishes belongs to. What is not valid counts as absent.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.trace_under(self.trace_parent().and_then(TraceParent::parse))
    }

    /// The trace that what the subscriber publishes belongs to, where it was told of another span of it.
    #[must_use]
    pub fn trace_under(&self, parent: Option<TraceParent>) -> Trace {
        let parent = parent.filter(TraceParent::is_some);
        Trace { parent, state: parent.and_then(|_| self.trace_state()).map(str::to_owned) }
    }

    /// `tracestate`, unless it is empty.
    pub(crate) fn trace_state(&self) -> Option<&str> {
        self.attribute("tracestate").filter(|state| !state.is_empty())
    }

    /// The data: the JSON text where the content type is JSON (or absent, as CloudEvents has it), the text where it was
    /// given as a JSON string, the decoded bytes of `data_base64`. Empty if there is none.
    #[must_use]
    pub fn data(&self) -> Cow<'_, [u8]> {
        if self.binary {
            return Cow::Borrowed(&self.body);
        }
        if let Some(encoded) = self.attribute("data_base64") {
            // What is no base64 is handed on as it stands: the subscriber may know better.
            return STANDARD.decode(encoded).map_or_else(|_| Cow::Borrowed(encoded.as_bytes()), Cow::Owned);
        }
        let raw = match self.value("data") {
            Some(Text::Span(span)) => self.slice(span),
            Some(Text::Own(text)) => text,
            None => "",
        };
        let json = self.data_content_type().is_none_or(|content_type| is_media_type(content_type, "application/json"));
        if json || !raw.starts_with('"') {
            return Cow::Borrowed(raw.as_bytes());
        }
        match unquote(raw) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }

    /// All other attributes, each once.
    #[must_use]
    pub fn extensions(&self) -> Vec<(String, String)> {
        let mut seen = HashSet::new();
        let last = self.members.iter().rev().filter(|member| seen.insert(self.text_of(&member.name)));
        let others = last.filter(|member| !KNOWN.contains(&self.text_of(&member.name)));
        let mut extensions: Vec<(String, String)> = others
            .filter_map(|member| {
                Some((self.text_of(&member.name).to_owned(), self.attribute_of(&member.value)?.to_owned()))
            })
            .collect();
        extensions.reverse();
        extensions
    }

    /// The attributes that rules look at, in order; of two of one name the last counts. In binary mode the data is in
    /// base64, as it would be in the JSON format.
    pub(crate) fn facts(&self, looked_at: impl Fn(&str) -> bool) -> Vec<(&str, Fact<'_>)> {
        let members = self.members.iter().map(|member| (self.text_of(&member.name), &member.value));
        let mut facts: Vec<(&str, Fact<'_>)> = members
            .filter(|(name, _)| looked_at(name))
            .map(|(name, value)| match value {
                Text::Own(text) => (name, Fact::Text(Cow::Borrowed(text))),
                Text::Span(span) => (name, Fact::Json(self.slice(span))),
            })
            .collect();
        if self.binary && looked_at("data_base64") {
            facts.push(("data_base64", Fact::Text(Cow::Owned(STANDARD.encode(&self.body)))));
        }
        facts
    }

    /// The value of a member; of several with one name the last counts, as with every JSON reader of Dapr's.
    fn value(&self, name: &str) -> Option<&Text> {
        self.members.iter().rev().find(|member| self.text_of(&member.name) == name).map(|member| &member.value)
    }

    fn text_of<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::Own(text) => text,
            Text::Span(span) => self.slice(span),
        }
    }

    fn slice(&self, span: &std::ops::Range<usize>) -> &str {
        self.text.get(span.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn add(&mut self, name: &str, value: &str) {
        self.members.push(Member { name: Text::Own(name.into()), value: Text::Own(value.into()) });
    }

    fn add_trace(&mut self, metadata: &Metadata) {
        for (name, value) in metadata {
            if let Some(known) = TRACE.iter().find(|known| known.eq_ignore_ascii_case(name))
                && self.value(known).is_none()
            {
                self.add(known, value);
            }
        }
    }
}

impl fmt::Debug for Event {
    /// Never the data: an event ends up in log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, .. } = self;
        f.debug_struct("Event").field("id", &self.id()).field("body_bytes", &body.len()).finish_non_exhaustive()
    }
}

/// Whether a content type names this media type: parameters and case do not matter.
pub(crate) fn is_media_type(content_type: &str, media_type: &str) -> bool {
    let essence = content_type.split_once(';').map_or(content_type, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case(media_type)
}

/// The text a tolerant reader sees in bytes that are not UTF-8: each byte that fits nowhere is replaced, as Dapr does.
pub(crate) fn tolerant(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests;
