//! What is shown of a topic: each event with its attempt, and its fate as the data plane tells it (`whimbrel_pubsub`'s
//! events, one line of its log for each thing that becomes of a message).

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tracing::field::{Field, Visit};
use tracing::{Event as Line, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use whimbrel_pubsub::{DeliveryInfo, Event};

/// Where the data plane tells what becomes of a message.
pub(crate) const TARGET: &str = "whimbrel_pubsub::events";

/// Events whose fate is not known yet. A subscription has fewer in work, so past it they are of fates that nobody told.
const WAITING_MAX: usize = 4096;

/// The tail of one topic.
#[derive(Debug)]
pub(crate) struct Tail {
    json: bool,
    max: Option<u64>,
    stopping: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    waiting: HashMap<Key, Vec<Seen>>,
    refused: Option<String>,
}

/// What an event and its fate have in common: topic, id, attempt.
type Key = (String, String, u64);

/// An event as it is shown.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    metadata: Vec<(String, String)>,
    body: Body,
}

/// What an HTTP app would get.
#[derive(Debug, Clone, PartialEq)]
enum Body {
    Json(String),
    Text(String),
    Bytes(Vec<u8>),
}

/// What became of a message.
#[derive(Debug, Default)]
struct Fate {
    what: String,
    topic: String,
    event_id: String,
    message_id: String,
    attempt: u64,
    reason: String,
}

impl Tail {
    pub(crate) fn new(json: bool, max: Option<u64>, stopping: CancellationToken) -> Self {
        Self { json, max, stopping, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an event until its fate is known; the last that is wanted begins the end. `false`: it is one too many, or there
    /// were to be none.
    pub(crate) fn note(&self, event: &Event, info: &DeliveryInfo) -> bool {
        let mut state = self.state();
        if self.max.is_some_and(|max| state.taken >= max) {
            return false;
        }
        if state.waiting.len() >= WAITING_MAX {
            state.waiting.clear();
        }
        state.taken += 1;
        let key = (info.topic.as_ref().to_owned(), event.id().to_owned(), u64::from(info.attempt));
        let seen = Seen { metadata: info.metadata.to_vec(), body: Body::of(event.body()) };
        state.waiting.entry(key).or_default().push(seen);
        if self.max == Some(state.taken) {
            self.stopping.cancel();
        }
        true
    }

    /// Why nothing will ever come, if that is so.
    pub(crate) fn refused(&self) -> Option<String> {
        self.state().refused.clone()
    }

    fn refuse(&self, why: String) {
        self.state().refused = Some(why);
        self.stopping.cancel();
    }

    /// Shows a message with its fate. Whoever reads may have seen enough: that ends it.
    fn tell(&self, fate: &Fate) {
        let key = (fate.topic.clone(), fate.event_id.clone(), fate.attempt);
        let mut state = self.state();
        let seen = state.waiting.get_mut(&key).and_then(Vec::pop);
        if state.waiting.get(&key).is_some_and(Vec::is_empty) {
            state.waiting.remove(&key);
        }
        // One too many, which nobody has seen: it is as it was.
        if seen.is_none() && fate.what.starts_with("held") {
            return;
        }
        // Under the lock: lines of two threads do not mix.
        let line = if self.json { fate.object(seen.as_ref()) } else { fate.line(seen.as_ref()) };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            self.stopping.cancel();
        }
    }
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if serde_json::from_str::<&RawValue>(text).is_ok() => Self::Json(text.to_owned()),
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }
}

impl Fate {
    fn told(&self) -> &str {
        if self.what == "delivered" { "acknowledged" } else { &self.what }
    }

    /// For people: one line.
    fn line(&self, seen: Option<&Seen>) -> String {
        let mut line = format!("{} attempt {} {}", self.topic, self.attempt, self.told());
        if !self.reason.is_empty() {
            write!(line, " ({})", self.reason).ok();
        }
        match seen.map(|seen| &seen.body) {
            Some(Body::Json(text) | Body::Text(text)) => write!(line, " {}", one_line(text)).ok(),
            Some(Body::Bytes(bytes)) => write!(line, " base64:{}", STANDARD.encode(bytes)).ok(),
            None => write!(line, " event {:?}, message {:?}", self.event_id, self.message_id).ok(),
        };
        line
    }

    /// For programs: one object. `body` is what an HTTP app would get.
    fn object(&self, seen: Option<&Seen>) -> String {
        let mut members = Map::new();
        let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
        add("topic", self.topic.as_str().into());
        add("id", self.event_id.as_str().into());
        add("messageId", self.message_id.as_str().into());
        add("attempt", self.attempt.into());
        add("fate", self.told().into());
        if !self.reason.is_empty() {
            add("reason", self.reason.as_str().into());
        }
        let Some(Seen { metadata, body }) = seen else { return Value::Object(members).to_string() };
        let metadata: Map<String, Value> =
            metadata.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        add("metadata", Value::Object(metadata));
        match body {
            Body::Text(text) => drop(add("body", text.as_str().into())),
            Body::Bytes(bytes) => drop(add("bodyBase64", STANDARD.encode(bytes).into())),
            Body::Json(text) => {
                // As it was sent: numbers keep their digits.
                let mut object = Value::Object(members).to_string();
                object.pop();
                return format!("{object},\"body\":{}}}", one_line(text));
            }
        }
        Value::Object(members).to_string()
    }
}

/// A text without breaks of the line, which in JSON are but blanks.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Listens to what the data plane tells.
#[derive(Debug)]
pub(crate) struct Fates(pub(crate) Arc<Tail>);

impl<S: Subscriber> Layer<S> for Fates {
    fn on_event(&self, line: &Line<'_>, _: Context<'_, S>) {
        let mut fate = Fate::default();
        line.record(&mut fate);
        if fate.what.starts_with("not subscribed") {
            self.0.refuse(fate.what);
        } else if !fate.message_id.is_empty() && fate.what != "an attempt failed and is made again" {
            self.0.tell(&fate);
        }
    }
}

impl Visit for Fate {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "attempt" {
            self.attempt = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let member = match field.name() {
            "message" => &mut self.what,
            "topic" => &mut self.topic,
            "event_id" => &mut self.event_id,
            "message_id" => &mut self.message_id,
            "reason" | "error" => &mut self.reason,
            _ => return,
        };
        value.clone_into(member);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What is displayed comes as its own debug form, without quotes.
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
