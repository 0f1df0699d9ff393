//! Tests of `Event`: the accessors on what arrives, and what is left untouched.

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event(text: &str) -> Event {
    Event::structured(Bytes::copy_from_slice(text.as_bytes()), &Vec::new()).expect(text)
}

fn check_attribute(text: &str, expect: Option<&str>) {
    assert_eq!(event(text).attribute("a"), expect, "{text}");
}

#[test]
fn attributes_are_text() {
    check_attribute(r#"{"a":"x"}"#, Some("x"));
    check_attribute(r#" { "a" : "x" } "#, Some("x"));
    check_attribute(r#"{"a":""}"#, Some(""));
    check_attribute(r#"{"a":"x\u00e9\n\"y\""}"#, Some("xé\n\"y\""));
    check_attribute(r#"{"\u0061":"x"}"#, Some("x"));
    check_attribute(r#"{"a":5}"#, Some("5"));
    check_attribute(r#"{"a":123456789012345678901234567890}"#, Some("123456789012345678901234567890"));
    check_attribute(r#"{"a":true}"#, Some("true"));
    check_attribute(r#"{"a":{"b":[1, "}"]}}"#, Some(r#"{"b":[1, "}"]}"#));
    check_attribute(r#"{"a":null}"#, None);
    check_attribute(r#"{"a":"null"}"#, Some("null"));
    check_attribute(r#"{"A":"x"}"#, None);
    check_attribute(r#"{}"#, None);
    check_attribute(r#"{"a":1,"a":2}"#, Some("2"));
    check_attribute(r#"{"a":"half \ud800 pair"}"#, Some(r"half \ud800 pair"));
}

fn check_data(text: &str, expect: &[u8]) {
    assert_eq!(event(text).data().as_ref(), expect, "{text}");
}

#[test]
fn data_is_what_a_handler_wants() {
    check_data(r#"{"datacontenttype":"application/json","data":{"n":1.10}}"#, br#"{"n":1.10}"#);
    check_data(r#"{"datacontenttype":"Application/JSON; charset=utf-8","data":"x"}"#, br#""x""#);
    check_data(r#"{"data":"x\n"}"#, br#""x\n""#);
    check_data(r#"{"data":[1, 2]}"#, b"[1, 2]");
    check_data(r#"{"datacontenttype":"text/plain","data":"x"}"#, b"x");
    check_data(r#"{"datacontenttype":"text/plain","data":"x\n"}"#, b"x\n");
    check_data(r#"{"datacontenttype":"text/plain","data":5}"#, b"5");
    check_data(r#"{"datacontenttype":"application/vnd.api+json","data":"{\"a\":1}"}"#, br#"{"a":1}"#);
    check_data(r#"{"datacontenttype":"application/octet-stream","data_base64":"AP8="}"#, b"\x00\xff");
    check_data(r#"{"data_base64":"no base64!"}"#, b"no base64!");
    check_data(r#"{"id":"x"}"#, b"");
}

#[test]
fn the_body_is_what_was_stored() {
    let text = "{ \"id\" :\"x\",\"n\":1e400,  \"big\":123456789012345678901234567890,\"é\":null}";
    assert_eq!(event(text).body(), text.as_bytes());
}

#[test]
fn extensions_are_all_other_attributes() {
    let text = r#"{"id":"i","source":"s","type":"t","specversion":"1.0","datacontenttype":"c","subject":"j","time":"w",
        "data":1,"data_base64":"","topic":"o","dataschema":"d","n":5,"nested":{"a":1},"gone":null,"twice":1,"twice":2}"#;
    let expect = [("topic", "o"), ("dataschema", "d"), ("n", "5"), ("nested", r#"{"a":1}"#), ("twice", "2")];
    let expect: Vec<_> = expect.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(event(text).extensions(), expect);
    let event = event(text);
    assert_eq!((event.id(), event.source(), event.kind(), event.spec_version()), ("i", "s", "t", "1.0"));
    assert_eq!((event.data_content_type(), event.subject(), event.time()), (Some("c"), Some("j"), Some("w")));
    assert_eq!(event.topic(), Some("o"));
}

fn check_trace(text: &str, parent: Option<&str>, trace: Option<&str>) {
    let event = event(text);
    assert_eq!(
        (event.trace_parent(), event.trace().parent.as_ref().map(TraceParent::as_str)),
        (parent, trace),
        "{text}"
    );
}

#[test]
fn a_trace_is_found_where_it_is() {
    check_trace(&format!(r#"{{"traceid":"x","traceparent":"{PARENT}"}}"#), Some(PARENT), Some(PARENT));
    check_trace(&format!(r#"{{"traceid":"{PARENT}","traceparent":""}}"#), Some(PARENT), Some(PARENT));
    check_trace(&format!(r#"{{"traceid":"{PARENT}"}}"#), Some(PARENT), Some(PARENT));
    check_trace(r#"{"traceid":"","traceparent":""}"#, Some(""), None);
    check_trace(r#"{"traceid":"abc"}"#, Some("abc"), None);
    check_trace(r#"{"traceparent":5}"#, Some("5"), None);
    check_trace("{}", None, None);
    let state = event(&format!(r#"{{"traceparent":"{PARENT}","tracestate":"a=b"}}"#)).trace().state;
    assert_eq!(state.as_deref(), Some("a=b"));
}

#[test]
fn a_trace_that_the_event_lacks_comes_from_the_metadata() {
    let metadata = vec![("TraceParent".to_owned(), PARENT.to_owned()), ("tracestate".to_owned(), "a=b".to_owned())];
    let bare = Event::structured(Bytes::from_static(b"{}"), &metadata).expect("an event");
    assert_eq!((bare.trace_parent(), bare.trace().state.as_deref()), (Some(PARENT), Some("a=b")));
    assert_eq!(bare.body(), &b"{}"[..]);
    let own = Event::structured(Bytes::from_static(b"{\"traceparent\":\"x\"}"), &metadata).expect("an event");
    assert_eq!(own.trace_parent(), Some("x"));
}

#[test]
fn debug_shows_no_data() {
    let shown = format!("{:?}", event(r#"{"id":"i","data":"secret"}"#));
    assert!(shown.contains("\"i\"") && !shown.contains("secret"), "{shown}");
}
