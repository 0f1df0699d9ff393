//! Messages to properties, and back.

use super::*;
use whimbrel_sdk::{Config, Property};

fn settings(given: &[(&str, &str)]) -> Settings {
    let all = [("hostname", "rabbit")].into_iter().chain(given.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.into(), value: value.into() }).collect();
    Settings::of(&Config { name: "bus".into(), properties, instance: "i".into() }).unwrap()
}

fn message(topic: &str, data: &[u8], metadata: &[(&str, &str)]) -> Message {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Message { topic: topic.to_owned(), key: None, data: data.to_vec(), metadata }
}

const FRAME_MAX: usize = 128 << 10;

#[test]
fn some_names_are_properties_and_all_others_headers() {
    let metadata = [
        ("RoutingKey", "r"),
        ("priority", "7"),
        ("ttlinseconds", "60"),
        ("contenttype", "a/b"),
        ("MessageId", "m"),
        ("correlationID", "c"),
        ("type", "t"),
        ("a", "1"),
        ("A", "2"),
        ("a", "3"),
        ("empty", ""),
    ];
    let (topic, out) = outgoing(&settings(&[]), FRAME_MAX, message("t", b"x", &metadata)).unwrap();
    assert_eq!((topic.as_str(), out.routing_key.as_str(), &out.body[..]), ("t", "r", &b"x"[..]));
    let text = |text: &str| Some(text.to_owned());
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = Properties {
        content_type: text("a/b"),
        headers: vec![header("A", "2"), header("a", "3"), header("empty", "")],
        delivery_mode: 2,
        priority: Some(7),
        correlation_id: text("c"),
        expiration: text("60000"),
        message_id: text("m"),
        kind: text("t"),
    };
    assert_eq!(out.properties, expected);
    let back = incoming(&settings(&[]), Content { properties: expected, body: out.body, size: 1 });
    let shown: Vec<String> = back.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(back.id, "m");
    assert_eq!(shown.join(" "), "A=2 a=3 empty= contentType=a/b messageID=m correlationID=c type=t priority=7");
}

#[test]
fn an_expiry_of_the_resource_counts_where_the_publish_has_none() {
    let expiry = |metadata: &[(&str, &str)]| {
        let (_, out) = outgoing(&settings(&[("ttlInSeconds", "5")]), FRAME_MAX, message("t", b"", metadata)).unwrap();
        out.properties.expiration
    };
    assert_eq!(expiry(&[]).as_deref(), Some("5000"));
    assert_eq!(expiry(&[("ttl", "90s")]).as_deref(), Some("90000"));
    assert_eq!(expiry(&[("ttlInSeconds", "")]).as_deref(), Some("5000"));
}

#[test]
fn what_amqp_cannot_carry_is_named() {
    let long = "x".repeat(256);
    let huge = "x".repeat(FRAME_MAX);
    let check = |topic: &str, data: &[u8], metadata: &[(&str, &str)], says: &str| {
        let refused = outgoing(&settings(&[]), FRAME_MAX, message(topic, data, metadata)).unwrap_err();
        let Failure::Invalid(text) = refused else { panic!("{refused:?}") };
        assert!(text.contains(says), "{text}");
    };
    check("", b"", &[], "topic");
    check(&long, b"", &[], "255");
    check("amq.topic", b"", &[], "amq.");
    check("a\nb", b"", &[], "line ends");
    check("t", b"", &[("routingKey", &long)], "routingKey");
    check("t", b"", &[("contentType", &long)], "contentType");
    check("t", b"", &[(&long, "")], "255");
    check("t", b"", &[("CC", "")], "CC");
    check("t", b"", &[("x-death", "")], "x-death");
    check("t", b"", &[("k", &huge)], "frame_max");
    check("t", b"", &[("priority", "256")], "priority");
    check("t", b"", &[("ttlInSeconds", "-1")], "ttlInSeconds");
    check("t", b"", &[("ttlInSeconds", "abc")], "ttlInSeconds");
    check("t", b"", &[("ttlInSeconds", "0")], "ttlInSeconds");
    check("t", &vec![0; MESSAGE_MAX_BYTES + 1], &[], "bytes");
    assert!(outgoing(&settings(&[]), FRAME_MAX, message("t", &vec![0; MESSAGE_MAX_BYTES], &[])).is_ok());
}

#[test]
fn ids_are_the_same_each_time() {
    let came = |message_id: Option<&str>, headers: &[(&str, &str)], body: &[u8]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let properties = Properties { message_id: message_id.map(str::to_owned), headers, ..Properties::default() };
        incoming(&settings(&[]), Content { properties, body: body.to_vec(), size: body.len() as u64 })
    };
    assert_eq!(came(Some("m"), &[], b"1").id, "m");
    let first = came(None, &[("a", "1")], b"1");
    let again = came(None, &[("a", "1"), ("x-delivery-count", "3")], b"1");
    assert_eq!((first.before, again.before), (None, Some(3)));
    assert_eq!((&first.id, &first.metadata), (&again.id, &again.metadata));
    assert_ne!(first.id, came(None, &[("a", "1")], b"2").id);
    let own = own_id("n", 31);
    let ours = came(Some(&own), &[], b"1");
    assert_eq!(ours.id, "whimbrel-n-1f");
    assert!(ours.metadata.is_empty(), "{:?}", ours.metadata);
}

#[test]
fn daprs_names_and_defaults() {
    let dapr = settings(&[("compat", "dapr")]);
    let (_, out) = outgoing(&dapr, FRAME_MAX, message("t", b"", &[])).unwrap();
    assert_eq!((out.properties.content_type.as_deref(), out.properties.delivery_mode), (Some("text/plain"), 0));
    let content = |properties| Content { properties, body: Vec::new(), size: 0 };
    let properties = Properties {
        content_type: Some("a/b".into()),
        message_id: Some("m".into()),
        priority: Some(1),
        ..Properties::default()
    };
    assert!(incoming(&dapr, content(properties.clone())).metadata.is_empty());
    let told = settings(&[("compat", "dapr"), ("publishMessagePropertiesToMetadata", "true")]);
    let names: Vec<String> = incoming(&told, content(properties)).metadata.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["contenttype", "messageid"]);
}
