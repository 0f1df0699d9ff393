//! Targets for fuzzers: each takes any bytes, and panics only where a promise is broken. `tests/fuzz` drives them with seeds; a
//! coverage-guided fuzzer calls them as they are: `fuzz_target!(|bytes: &[u8]| whimbrel_pubsub::fuzz::event(bytes))`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::broker::{Message, Metadata};
use crate::envelope::{self, Draft};
use crate::environment::Environment;
use crate::event::Event;
use crate::trace::Trace;

/// Content types of what is published, by the first byte of an input.
const CONTENT_TYPES: [Option<&str>; 7] = [
    None,
    Some("application/json"),
    Some("application/octet-stream"),
    Some("text/plain; charset=utf-8"),
    Some("application/xml"),
    Some("application/cloudevents+json"),
    Some("\"\\\u{1}"),
];

/// An event in the JSON format: its bytes stay as they are, and what every JSON reader takes is taken and read alike.
pub fn event(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let metadata = vec![("tracestate".to_owned(), "a=b".to_owned())];
    let known = serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object);
    let event = match Event::structured(body.clone(), &metadata) {
        Ok(event) => event,
        Err(why) => {
            assert!(known.is_none(), "a JSON object was refused: {why}");
            return;
        }
    };
    assert_eq!(event.body(), &body);
    for name in ["id", "source", "type", "subject", "time"] {
        if let Some(Value::String(text)) = known.as_ref().and_then(|known| known.get(name)) {
            assert_eq!(event.attribute(name), Some(text.as_str()), "{name}");
        }
    }
    look_at(&event);
}

/// What is published, after a byte that chooses the content type and whether it is raw: what can be stored can be
/// delivered, and its data comes out as it went in.
pub fn envelope(bytes: &[u8]) {
    let Some((first, data)) = bytes.split_first() else { return };
    let raw = first & 0x80 != 0;
    let content_type = CONTENT_TYPES[usize::from(first & 0x7f) % CONTENT_TYPES.len()];
    let (environment, data) = (Environment::system(), Bytes::copy_from_slice(data));
    let (topic, trace) = (Arc::from("orders"), Trace::default());
    let draft = Draft { app_id: "me", pubsub: "bus", topic: &topic, data: &data, content_type, trace: &trace };
    let Ok((message, _)) = envelope::wrap(draft, Metadata::new(), raw, &environment, true) else { return };
    let event = envelope::unwrap(&message, &message.metadata, &Ok(raw), "bus", &environment.random);
    let event = event.unwrap_or_else(|why| panic!("what was stored cannot be delivered: {why}"));
    look_at(&event);
    let is_text = std::str::from_utf8(&data).is_ok();
    match content_type {
        _ if raw => assert_eq!(&*event.data(), &*data),
        Some("application/octet-stream") => assert_eq!(&*event.data(), &*data),
        None | Some("text/plain; charset=utf-8" | "application/xml") if is_text => assert_eq!(&*event.data(), &*data),
        Some("application/json") => {
            if let Ok(value) = serde_json::from_slice::<Value>(&data) {
                assert_eq!(serde_json::from_slice::<Value>(&event.data()).ok(), Some(value));
            }
        }
        _ => {}
    }
}

/// What a broker delivers, after a byte that chooses its content type and whether the subscription is raw: an event, or
/// the reason why it is none.
pub fn delivered(bytes: &[u8]) {
    let Some((first, data)) = bytes.split_first() else { return };
    let content_type = CONTENT_TYPES[usize::from(first & 0x7f) % CONTENT_TYPES.len()];
    let mut metadata = vec![("ce_id".to_owned(), "1".to_owned()), ("ce_".to_owned(), "odd".to_owned())];
    metadata.extend(content_type.map(|given| ("Content-Type".to_owned(), given.to_owned())));
    let data = Bytes::copy_from_slice(data);
    let message = Message { topic: Arc::from("orders"), key: None, data, metadata: Metadata::new() };
    let raw = Ok(first & 0x80 != 0);
    let environment = Environment::system();
    if let Ok(event) = envelope::unwrap(&message, &metadata, &raw, "bus", &environment.random) {
        look_at(&event);
        envelope::expired(&event, environment.clock.now());
    }
}

/// Everything that is read of an event on its way.
fn look_at(event: &Event) {
    let data = event.data();
    assert!(data.len() <= event.body().len().saturating_mul(3), "no more comes out than went in");
    assert!(event.extensions().iter().all(|(name, _)| name != "id" && name != "data"), "{event:?}");
    assert!(
        event.trace().parent.is_none_or(|parent| parent.trace_id() > 0 && parent.span_id() > 0),
        "a trace is one, or none"
    );
    assert!(event.facts(|_| true).len() >= event.facts(|name| name == "id").len());
}
