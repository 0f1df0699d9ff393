use super::*;

fn message(topic: &str, data: &str, metadata: &[(&str, &str)]) -> Message {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Message { topic: topic.to_owned(), key: None, data: data.as_bytes().to_vec(), metadata }
}

fn head(message: &Message, deduplication: Deduplication) -> String {
    let mut out = Vec::new();
    write_head(&mut out, message, deduplication);
    String::from_utf8(out).unwrap()
}

#[test]
fn metadata_is_headers() {
    let plain = message("t", "x", &[("a", "b c"), ("A", "ü"), ("a", "")]);
    assert_eq!(head(&plain, Deduplication::Off), "NATS/1.0\r\na: b c\r\nA: ü\r\na: \r\n\r\n");
    assert_eq!(read_head(head(&plain, Deduplication::Off).as_bytes()), plain.metadata);
    assert_eq!(head(&message("t", "x", &[]), Deduplication::Event), "");
}

#[test]
fn what_no_header_can_carry_is_escaped() {
    let pairs = [
        ("", "x"),
        ("ü", "日本"),
        ("a:b", "c"),
        ("a b", " c "),
        ("line", "a\r\nNats-Rollup: all"),
        ("Nats-Msg-Id", "7"),
        ("nats-ttl", "1s"),
        ("Whimbrel-Escaped", "a=b"),
        ("x=%", "%=\0"),
    ];
    let strange = message("t", "x", &pairs);
    let head = head(&strange, Deduplication::Off);
    assert_eq!(head.matches("Whimbrel-Escaped: ").count(), pairs.len(), "{head}");
    assert_eq!(read_head(head.as_bytes()), strange.metadata);
}

#[test]
fn what_the_broker_adds_stays_out() {
    let head = b"NATS/1.0\r\nNats-Msg-Id: 7\r\nNATS-Stream: S\r\nkept: yes\r\nWhimbrel-Escaped: broken\r\n\r\n";
    assert_eq!(read_head(head), [("kept".to_owned(), "yes".to_owned())]);
}

#[test]
fn only_the_same_event_has_the_same_id() {
    let id = |topic, data| message_id(&message(topic, data, &[]), Deduplication::Event);
    let event = r#"{"specversion":"1.0","id":"7","source":"a","data":{"id":"8"}}"#;
    let first = id("orders", event).unwrap();
    assert!(first.starts_with("7@") && first.len() == 18, "{first}");
    assert_eq!(id("orders", event).unwrap(), first);
    assert_ne!(id("orders.dead", event).unwrap(), first, "a dead letter is no repetition");
    assert_ne!(id("orders", &event.replace(r#""source":"a""#, r#""source":"b""#)).unwrap(), first);
}

#[test]
fn what_has_no_id() {
    let check = |data: &str, metadata: &[(&str, &str)], event: bool, dapr: bool| {
        let message = message("t", data, metadata);
        assert_eq!(message_id(&message, Deduplication::Event).is_some(), event, "{data}");
        assert_eq!(message_id(&message, Deduplication::Id), dapr.then(|| "7".to_owned()), "{data}");
        assert_eq!(message_id(&message, Deduplication::Off), None);
    };
    check(r#" {"id":"7","specversion":"1.0"}"#, &[], true, true);
    check(r#"{"id":"7"}"#, &[], false, true);
    check(r#"{"id":"7","specversion":"1.0"}"#, &[("rawPayload", "true")], false, false);
    check(r#"{"id":"7","specversion":"1.0"}"#, &[("rawPayload", "false")], true, true);
    check(r#"{"id":7,"specversion":"1.0"}"#, &[], false, false);
    check(r#"{"id":"7\r\nNats-Rollup: all","specversion":"1.0"}"#, &[], false, false);
    check(r#"{"id":"7","specversion":"1.0""#, &[], false, false);
    check("7", &[], false, false);
    check("", &[], false, false);
    check("\u{0}", &[], false, false);
}

#[test]
fn topics() {
    for fine in ["orders", "a.b.c", "ü.日本", "a*b", "a>b", "_x-1"] {
        assert_eq!(check_topic(fine), Ok(()), "{fine}");
    }
    for wrong in ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\0", "a.*", "a.>", ">", "$JS.API.INFO", "a\u{a0}b"] {
        assert!(matches!(check_topic(wrong), Err(Failure::Invalid(_))), "{wrong}");
    }
    assert_eq!(check_topic(&"x".repeat(3072)), Ok(()));
    assert!(matches!(check_topic(&"x".repeat(3073)), Err(Failure::Invalid(_))));
    for fine in ["a.*", "a.>", ">", "*", "*.b"] {
        assert_eq!(check_filter(fine), Ok(()), "{fine}");
    }
    for wrong in ["a.>.b", "", "a..*"] {
        assert!(matches!(check_filter(wrong), Err(Failure::Invalid(_))), "{wrong}");
    }
}
