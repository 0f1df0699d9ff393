use super::*;

#[test]
fn metadata_is_a_name_and_a_value() {
    assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
    assert!(pair("a").is_err() && pair("=b").is_err());
}

#[test]
fn data_is_taken_for_what_it_looks_like() {
    for (data, expected) in [
        (&br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":1}"#[..], "application/cloudevents+json"),
        (br#"{"specversion":"1.0","id":1,"source":"s","type":"t"}"#, "application/json"),
        (b"[1]", "application/json"),
        (b"hello", "text/plain"),
        (b"", "text/plain"),
        (b"\xff\x00", "application/octet-stream"),
    ] {
        assert_eq!(looks_like(data), expected, "{data:?}");
    }
}
