//! Tests of `envelope`: each row of the tables of pubsub-behaviour, sections 1.2, 4 and 11.1. `golden` compares with
//! what the real sidecar delivered.

mod golden;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::{Caller, Clock, PublishRequest, TraceParent};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn environment() -> Environment {
    let start = DateTime::parse_from_rfc3339("2026-01-02T03:04:05.600Z").expect("a time").to_utc();
    Environment {
        clock: Clock::Simulated(start, Instant::now()),
        random: Random::seeded(1),
        metrics: crate::Metrics::default(),
        tracer: crate::Tracer::default(),
    }
}

fn request(content_type: Option<&str>, body: &[u8], metadata: &[(&str, &str)]) -> PublishRequest {
    PublishRequest {
        caller: Caller { app_id: Arc::from("me") },
        pubsub: "bus".into(),
        topic: "t".into(),
        data: Bytes::copy_from_slice(body),
        content_type: content_type.map(str::to_owned),
        metadata: pairs(metadata),
        trace: Trace::default(),
    }
}

/// As the spine wraps it.
fn wrap(
    request: PublishRequest,
    environment: &Environment,
    native_ttl: bool,
) -> Result<(Message, EventId), PublishError> {
    let raw = raw_payload(&request.metadata)?;
    let draft = Draft {
        app_id: &request.caller.app_id,
        pubsub: &request.pubsub,
        topic: &Arc::from(request.topic),
        data: &request.data,
        content_type: request.content_type.as_deref(),
        trace: &request.trace,
    };
    super::wrap(draft, request.metadata, raw, environment, native_ttl)
}

fn pairs(metadata: &[(&str, &str)]) -> Metadata {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn stored(request: PublishRequest) -> Value {
    let message = wrap(request, &environment(), false).expect("wrapped").0;
    serde_json::from_slice(&message.data).expect("an object")
}

/// What stands in the envelope under `data` or `data_base64`, as it is written.
fn check_data(content_type: &str, body: &[u8], expect: &str) {
    let message = wrap(request(Some(content_type), body, &[]), &environment(), false).expect("wrapped").0;
    let text = std::str::from_utf8(&message.data).expect("UTF-8");
    assert!(text.starts_with(&format!("{{{expect},\"datacontenttype\":")), "{content_type} {body:?}: {text}");
    let event: Value = serde_json::from_str(text).unwrap_or(json!({ "datacontenttype": content_type }));
    assert_eq!(event["datacontenttype"], content_type);
}

#[tokio::test(start_paused = true)]
async fn data_stands_as_its_content_type_says() {
    check_data("application/json", br#"{"a":1}"#, r#""data":{"a":1}"#);
    check_data("Application/JSON; charset=utf-8", b" [1, 2] ", r#""data":[1, 2]"#);
    check_data("application/json", b"1152921504606846977", r#""data":1152921504606846977"#);
    check_data("application/json", b"1e400", r#""data":1e400"#);
    check_data("application/json", b"1.10", r#""data":1.10"#);
    check_data("application/json", b"null", r#""data":null"#);
    check_data("application/json", br#"{"a":1} x"#, r#""data":{"a":1}"#);
    check_data("application/json", b"42 x", r#""data":42"#);
    check_data("application/json", b"42x", r#""data":"42x""#);
    check_data("application/json", b"{not json", r#""data":"{not json""#);
    check_data("application/json", b"", r#""data":"""#);
    check_data("application/json", b"{\"a\":\"\xff\"}", "\"data\":{\"a\":\"\u{fffd}\"}");
    check_data("application/json", b"\x00\xff\xfe\x01", "\"data\":\"\\u0000\u{fffd}\u{fffd}\\u0001\"");
    check_data("text/plain", b"a \"quoted\"\nline", r#""data":"a \"quoted\"\nline""#);
    check_data("text/plain", b"\xe2\x82", "\"data\":\"\u{fffd}\u{fffd}\"");
    check_data("application/vnd.api+json", br#"{"a":1}"#, r#""data":"{\"a\":1}""#);
    check_data("application/octet-stream", b"\x00\xff", r#""data_base64":"AP8=""#);
    check_data("application/octet-stream", b"", r#""data_base64":"""#);
    check_data("application/cloudevents+protobuf", b"any", r#""data_base64":"YW55""#);
    check_data("application/x-protobuf", b"any", r#""data":"any""#);
    check_data(
        "application/x-protobuf",
        b"\x0a\x01i\x12\x01s\x1a\x031.0\x22\x01t",
        r#""data_base64":"CgFpEgFzGgMxLjAiAXQ=""#,
    );
}

#[tokio::test(start_paused = true)]
async fn deep_json_passes_without_a_stack() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let message =
        wrap(request(Some("application/json"), deep.as_bytes(), &[]), &environment(), false).expect("wrapped").0;
    let event = unwrap(&message, &message.metadata, &Ok(false), "bus", &Random::seeded(1)).expect("an event");
    assert_eq!(event.data().as_ref(), deep.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn an_envelope_has_every_attribute() {
    let event = stored(request(None, b"hi", &[]));
    let id = event["id"].as_str().and_then(|id| uuid::Uuid::parse_str(id).ok()).expect("a UUID");
    assert_eq!(id.get_version_num(), 4);
    assert!(DateTime::parse_from_rfc3339(event["time"].as_str().expect("text")).is_ok());
    let mut rest = event;
    rest["id"].take();
    rest["time"].take();
    let expect = json!({
        "data": "hi", "datacontenttype": "text/plain", "id": null, "pubsubname": "bus", "source": "me",
        "specversion": "1.0", "time": null, "topic": "t", "traceid": "", "traceparent": "", "tracestate": "",
        "type": "com.dapr.event.sent",
    });
    assert_eq!(rest, expect);
}

#[tokio::test(start_paused = true)]
async fn an_envelope_is_a_cloud_event_for_the_sdk() {
    for (content_type, body) in
        [("application/json", "{\"a\":1}"), ("text/plain", "x"), ("application/octet-stream", "x")]
    {
        let metadata = [("cloudevent.subject", "s \" \u{1F600}"), ("ttl", "1h")];
        let message =
            wrap(request(Some(content_type), body.as_bytes(), &metadata), &environment(), false).expect("wrapped").0;
        let event: cloudevents::Event = serde_json::from_slice(&message.data).expect("a CloudEvent");
        use cloudevents::AttributesReader as _;
        assert_eq!((event.ty(), event.subject()), ("com.dapr.event.sent", Some("s \" \u{1F600}")));
    }
}

/// What one attribute of the envelope becomes.
fn check_option(metadata: &[(&str, &str)], attribute: &str, expect: impl Into<Value>) {
    let event = stored(request(None, b"hi", metadata));
    assert_eq!(event.get(attribute).cloned().unwrap_or_default(), expect.into(), "{attribute} after {metadata:?}");
}

#[tokio::test(start_paused = true)]
async fn metadata_overrides_attributes() {
    check_option(&[("cloudevent.id", "x")], "id", "x");
    check_option(&[("CloudEvent.ID", "x")], "id", "x");
    check_option(&[("cloudevent.source", "x")], "source", "x");
    check_option(&[("cloudevent.source", "")], "source", "me");
    check_option(&[("cloudevent.type", "x")], "type", "x");
    check_option(&[("cloudevent.subject", "x")], "subject", "x");
    check_option(&[("cloudevent.subject", "")], "subject", Value::Null);
    check_option(&[("cloudevent.traceid", "x")], "traceparent", "x");
    check_option(&[("cloudevent.traceid", "x"), ("cloudevent.traceparent", "y")], "traceid", "y");
    check_option(&[("cloudevent.traceparent", "x")], "traceid", "x");
    check_option(&[("cloudevent.tracestate", "x")], "tracestate", "x");
    check_option(&[("cloudevent.topic", "x")], "topic", "t");
    check_option(&[("cloudevent.datacontenttype", "x")], "datacontenttype", "text/plain");
    check_option(&[("cloudevent.data", "x")], "data", "hi");
    check_option(&[("id", "x")], "type", "com.dapr.event.sent");
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_becomes_an_expiration() {
    check_option(&[("ttlInSeconds", "60")], "expiration", "2026-01-02T03:05:05Z");
    check_option(&[("TTLINSECONDS", "60")], "expiration", "2026-01-02T03:05:05Z");
    check_option(&[("ttlInSeconds", "60"), ("ttl", "1m30s")], "expiration", "2026-01-02T03:05:35Z");
    check_option(&[("ttl", "0")], "expiration", "2026-01-02T03:04:05Z");
    check_option(&[("ttl", "-5s")], "expiration", "2026-01-02T03:04:00Z");
    check_option(&[("ttl", "-5")], "expiration", Value::Null);
    check_option(&[("ttl", "soon")], "expiration", Value::Null);
    check_option(&[("ttl", "")], "expiration", Value::Null);
    check_option(&[("ttl", "99999999999")], "expiration", "2318-04-14T02:51:21Z");
    check_option(&[("ttl", "99999999999999999999999")], "expiration", Value::Null);
    let native = wrap(request(None, b"", &[("ttl", "5")]), &environment(), true).expect("wrapped").0;
    assert!(!native.data.windows(10).any(|window| window == b"expiration"));
}

/// The log names the event that the subscriber gets.
#[tokio::test(start_paused = true)]
async fn the_id_that_is_told_is_the_events() {
    let cloud_event = Some("application/cloudevents+json");
    for (content_type, body, metadata) in [
        (None, &b"text"[..], &[][..]),
        (None, b"text", &[("cloudevent.id", "mine \"1\"")]),
        (cloud_event, br#"{"id":"a \"b\"","data":1}"#, &[]),
    ] {
        let (message, id) = wrap(request(content_type, body, metadata), &environment(), false).expect("wrapped");
        let event = unwrap(&message, &message.metadata, &Ok(false), "bus", &Random::seeded(1)).expect("an event");
        assert_eq!(id.to_string(), event.id());
    }
}

#[tokio::test(start_paused = true)]
async fn a_raw_payload_is_not_touched() {
    for value in ["1", "t", "T", "TRUE", "true", "True"] {
        let message = wrap(request(None, b"\xff{", &[("rawPayload", value), ("ttl", "5")]), &environment(), false);
        let (message, id) = message.expect("wrapped");
        assert_eq!(id, EventId::None);
        assert_eq!(message.data, &b"\xff{"[..]);
        assert_eq!(message.metadata, pairs(&[("rawPayload", value), ("ttl", "5")]));
    }
    for value in ["0", "f", "F", "FALSE", "false", "False", ""] {
        check_option(&[("rawPayload", value)], "data", "hi");
    }
    check_option(&[("rawpayload", "true")], "data", "hi");
    for value in ["maybe", "yes", " true", "tRUE"] {
        let refused = wrap(request(None, b"", &[("rawPayload", value)]), &environment(), false);
        assert_eq!(refused, Err(PublishError::RawPayload { actual: value.to_owned() }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_key_becomes_the_key() {
    let message = wrap(request(None, b"", &[("partitionKey", "k")]), &environment(), false).expect("wrapped").0;
    assert_eq!(message.key.as_deref(), Some("k"));
    assert_eq!(message.metadata, pairs(&[("partitionKey", "k")]));
}

#[tokio::test(start_paused = true)]
async fn the_trace_of_the_request_is_written() {
    let mut traced = request(None, b"", &[]);
    traced.trace = Trace { parent: TraceParent::parse(PARENT), state: Some("a=b".into()) };
    let event = stored(traced);
    assert_eq!(
        (&event["traceid"], &event["traceparent"], &event["tracestate"]),
        (&json!(PARENT), &json!(PARENT), &json!("a=b"))
    );
    let mut stray = request(None, b"", &[]);
    stray.trace = Trace { parent: None, state: Some("a=b".into()) };
    assert_eq!(stored(stray)["tracestate"], "");
}

/// What a CloudEvent that was given becomes; `time` and the trace are left out where they are ours.
fn check_pass(body: &str, expect: &Value) {
    let mut event = stored(request(Some("application/cloudevents+json"), body.as_bytes(), &[]));
    let members = event.as_object_mut().expect("an object");
    for (name, ours) in
        [("traceid", ""), ("traceparent", ""), ("tracestate", ""), ("topic", "t"), ("pubsubname", "bus")]
    {
        if members.get(name) == Some(&json!(ours)) && expect.get(name).is_none() {
            members.remove(name);
        }
    }
    if expect.get("time").is_none() {
        let time = members.remove("time").expect("a time");
        assert!(DateTime::parse_from_rfc3339(time.as_str().expect("text")).is_ok());
    }
    assert_eq!(&event, expect, "{body}");
}

#[tokio::test(start_paused = true)]
async fn an_event_passes_with_what_it_lacks() {
    let ours = |with: Value| {
        let mut all = json!({ "source": "Dapr", "type": "com.dapr.event.sent", "specversion": "1.0" });
        all.as_object_mut().expect("object").extend(with.as_object().expect("object").clone());
        all
    };
    check_pass("{}", &ours(json!({})));
    check_pass(" {} trailing", &ours(json!({})));
    check_pass(r#"{"source":null,"type":null,"specversion":null}"#, &ours(json!({})));
    check_pass(r#"{"id":null}"#, &ours(json!({ "id": null })));
    check_pass(
        r#"{"id":5,"source":"s","type":"t","specversion":"0.3"}"#,
        &json!({ "id": 5, "source": "s", "type": "t", "specversion": "0.3" }),
    );
    check_pass(r#"{"topic":"other","pubsubname":5}"#, &ours(json!({})));
    check_pass(r#"{"time":null}"#, &ours(json!({ "time": null })));
    check_pass(r#"{"traceid":"x"}"#, &ours(json!({ "traceid": "x" })));
    check_pass(r#"{"traceid":5,"traceparent":{}}"#, &ours(json!({ "traceid": 5, "traceparent": {} })));
    check_pass(r#"{"traceparent":"x"}"#, &ours(json!({})));
    check_pass(r#"{"tracestate":"x"}"#, &ours(json!({ "tracestate": "x" })));
    check_pass(r#"{"a\"b":[1,{}],"UPPER":"x"}"#, &ours(json!({ "a\"b": [1, {}], "UPPER": "x" })));
    check_pass("{\"s\":\"\\u00e9\"}", &ours(json!({ "s": "\u{e9}" })));
    check_pass(r#"{"x":1,"x":2}"#, &ours(json!({ "x": 2 })));
}

#[tokio::test(start_paused = true)]
async fn an_event_keeps_how_its_numbers_are_written() {
    let body = br#"{"id":"x","data":{"n":1.10,"big":123456789012345678901234567890,"e":1e400}}"#;
    let message = wrap(request(Some("application/cloudevents+json"), body, &[("ttl", "1")]), &environment(), false);
    let text = String::from_utf8(message.expect("wrapped").0.data.to_vec()).expect("UTF-8");
    assert!(text.contains(r#""data":{"n":1.10,"big":123456789012345678901234567890,"e":1e400}"#), "{text}");
    assert!(text.contains(r#""expiration":"2026-01-02T03:04:06Z""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_refused() {
    let no = |what: &str| format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}");
    for (body, expect) in [
        ("[]", no("array")),
        ("\"x\"", no("string")),
        ("5", no("number")),
        ("true", no("bool")),
        ("null", no("null")),
        ("", "EOF".to_owned()),
        (" ", "EOF".to_owned()),
        ("{bad", "key must be a string at line 1 column 2".to_owned()),
        ("{\"a\":1", "EOF while parsing an object at line 1 column 6".to_owned()),
        ("{\"a\":1,}", "trailing comma at line 1 column 8".to_owned()),
    ] {
        let refused = wrap(request(Some("application/cloudevents+json"), body.as_bytes(), &[]), &environment(), false);
        assert_eq!(refused, Err(PublishError::CloudEvent { error: expect }), "{body}");
    }
}

fn arrived(data: &'static [u8], metadata: &[(&str, &str)]) -> Message {
    Message { topic: Arc::from("t"), key: None, data: Bytes::from_static(data), metadata: pairs(metadata) }
}

fn read(message: &Message, raw: bool) -> Result<Event, Reason> {
    unwrap(message, &message.metadata, &Ok(raw), "bus", &Random::seeded(1))
}

#[test]
fn a_raw_subscription_gets_an_event_around_any_bytes() {
    let event = read(&arrived(b"\x00\xff", &[("traceparent", PARENT), ("x", "y")]), true).expect("an event");
    let mut body: Value = serde_json::from_slice(event.body()).expect("JSON");
    assert!(uuid::Uuid::parse_str(body["id"].take().as_str().expect("text")).is_ok());
    let expect = json!({
        "id": null, "specversion": "1.0", "datacontenttype": "application/octet-stream", "source": "Dapr",
        "type": "com.dapr.event.sent", "topic": "t", "pubsubname": "bus", "data_base64": "AP8=",
        "traceid": PARENT, "traceparent": PARENT,
    });
    assert_eq!(body, expect);
    assert_eq!(event.data().as_ref(), b"\x00\xff");
    let plain = read(&arrived(b"", &[]), true).expect("an event");
    assert_eq!((plain.trace_parent(), plain.data().len()), (None, 0));
}

#[test]
fn octets_are_an_event_in_binary_mode() {
    let metadata =
        [("Content-Type", "application/octet-stream"), ("ce_id", "i"), ("CE_Type", "t"), ("ce_expiration", "x")];
    let event = read(&arrived(b"\xffanything", &metadata), false).expect("an event");
    assert_eq!(event.body(), &b"\xffanything"[..]);
    assert_eq!(event.data().as_ref(), b"\xffanything");
    assert_eq!((event.id(), event.kind(), event.expiration()), ("i", "t", Some("x")));
    assert_eq!(event.data_content_type(), Some("application/octet-stream"));
}

#[test]
fn what_is_no_object_cannot_be_read() {
    for data in [&b"text"[..], b"[]", b"", b"null", b"{}x", b"{\"a\":1", b"{} {}"] {
        assert!(matches!(read(&arrived(data, &[]), false), Err(Reason::Unparsable(_))), "{data:?}");
    }
    let message = arrived(b"{}", &[]);
    let raw = raw_subscription(&pairs(&[("rawPayload", "maybe")]));
    assert!(matches!(unwrap(&message, &message.metadata, &raw, "bus", &Random::seeded(1)), Err(Reason::Unparsable(_))));
    assert_eq!(raw_subscription(&pairs(&[("rawPayload", "true")])), Ok(true));
    assert_eq!(raw_subscription(&pairs(&[("rawpayload", "true")])), Ok(false));
}

#[test]
fn a_body_that_is_not_utf8_is_delivered_as_it_is() {
    let event = read(&arrived(b"{\"id\":\"a\xff\"}", &[]), false).expect("an event");
    assert_eq!(event.body(), &b"{\"id\":\"a\xff\"}"[..]);
    assert_eq!(event.id(), "a\u{fffd}");
}

#[test]
fn an_event_expires_when_its_time_has_come() {
    let now = DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").expect("a time").to_utc();
    for (expiration, expect) in [
        ("\"2026-01-02T03:04:04Z\"", true),
        ("\"2026-01-02T03:04:05Z\"", true),
        ("\"2026-01-02T03:04:06Z\"", false),
        ("\"2026-01-02T04:04:04+01:00\"", true),
        ("\"2026-01-02 03:04:04Z\"", false),
        ("\"2026-01-02t03:04:04Z\"", false),
        ("\"2026-01-02T03:04:04z\"", false),
        ("\"soon\"", false),
        ("\"\"", false),
        ("5", false),
        ("null", false),
    ] {
        let data = Bytes::from(format!("{{\"expiration\":{expiration}}}"));
        let event = Event::structured(data, &Vec::new()).expect("an event");
        assert_eq!(expired(&event, now), expect, "{expiration}");
    }
}
