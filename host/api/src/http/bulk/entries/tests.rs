//! Entries and what becomes of them, against what daprd answers.

use super::*;

fn check(body: &str, expect: Result<&[(&str, &str)], EntriesError>) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let read = read(&body).map(|entries| {
        let shown = |entry: BulkEntry| (entry.id, String::from_utf8_lossy(&entry.data).into_owned());
        entries.into_iter().map(shown).collect::<Vec<_>>()
    });
    let expect =
        expect.map(|entries| entries.iter().map(|&(id, data)| (id.to_owned(), data.to_owned())).collect::<Vec<_>>());
    assert_eq!(read, expect, "{body:?}");
}

fn entry(rest: &str) -> String {
    format!(r#"[{{"entryId":"1",{rest}}}]"#)
}

fn check_data(content_type: &str, event: &str, expect: &str) {
    check(&entry(&format!(r#""contentType":"{content_type}","event":{event}"#)), Ok(&[("1", expect)]));
}

fn check_mismatch(content_type: &str, event: &str) {
    let body = entry(&format!(r#""contentType":"{content_type}","event":{event}"#));
    check(&body, Err(EntriesError::Unconvertible(MISMATCH.into())));
}

fn check_undecodable(body: &str, why: &str) {
    check(body, Err(EntriesError::Undecodable(why.into())));
}

#[test]
fn an_event_is_read_as_its_content_type_says() {
    check_data("application/json", r#"{"a": 1152921504606846977}"#, r#"{"a": 1152921504606846977}"#);
    check_data("Application/JSON; charset=utf-8", "7", "7");
    check_data("application/json", r#""text""#, r#""text""#);
    check_data("application/cloudevents+json", r#"{"id":"x"}"#, r#"{"id":"x"}"#);
    check_data("text/plain", r#""plain""#, "plain");
    check_data("TEXT/html", r#""\u00e9\n""#, "é\n");
    check_data("application/xml", r#""<a/>""#, "<a/>");
    check_data("application/octet-stream", r#""AAEC""#, "\0\u{1}\u{2}");
    check_data("application/octet-stream", r#""AA\nEC""#, "\0\u{1}\u{2}");
    check_data("application/octet-stream", r#""""#, "");
    check(&entry(r#""contentType":"application/json""#), Ok(&[("1", "null")]));
}

#[test]
fn an_event_that_is_something_else_fails_the_request() {
    check_mismatch("text/plain", r#"{"a":1}"#);
    check_mismatch("text/plain", "null");
    check_mismatch("application/octet-stream", "[1]");
    check_mismatch("application/xml", "1");
    check_mismatch("", r#""x""#);
    check_mismatch("image/png", r#""x""#);
    check(&entry(r#""event":1"#), Err(EntriesError::Unconvertible(MISMATCH.into())));
    let why = "error: unable to decode base64 application/octect-stream data: illegal base64 data at input byte 3";
    let body = entry(r#""contentType":"application/octet-stream","event":"not base64!""#);
    check(&body, Err(EntriesError::Unconvertible(why.into())));
}

#[test]
fn each_entry_has_an_id_of_its_own() {
    let json = r#""contentType":"application/json""#;
    check(&format!(r#"[{{"entryId":"1",{json}}},{{"entryId":"1",{json}}}]"#), Err(EntriesError::EntryId));
    check(&format!(r#"[{{"entryId":"",{json}}}]"#), Err(EntriesError::EntryId));
    check(&format!("[{{{json}}}]"), Err(EntriesError::EntryId));
    check(r#"[{"ENTRYID":"1","ContentType":"text/plain","EVENT":"x","more":[1]}]"#, Ok(&[("1", "x")]));
    check("[null]", Err(EntriesError::Unconvertible(MISMATCH.into())));
}

#[test]
fn a_list_is_all_there_need_be() {
    check("[]", Ok(&[]));
    check("null", Ok(&[]));
    check(" [] and more", Ok(&[]));
}

#[test]
fn what_is_no_list_of_entries_is_told_in_daprs_words() {
    check_undecodable("", "EOF");
    check_undecodable(" \n", "EOF");
    check_undecodable("[", "unexpected EOF");
    check_undecodable(r#"[{"entryId":"1""#, "unexpected EOF");
    check_undecodable(
        r#"{"a":1}"#,
        "json: cannot unmarshal object into Go value of type []http.bulkPublishMessageEntry",
    );
    check_undecodable("5", "json: cannot unmarshal number into Go value of type []http.bulkPublishMessageEntry");
    check_undecodable("[5]", "json: cannot unmarshal number into Go value of type http.bulkPublishMessageEntry");
    let field = |kind: &str, field: &str, wanted: &str| {
        format!("json: cannot unmarshal {kind} into Go struct field bulkPublishMessageEntry.{field} of type {wanted}")
    };
    check_undecodable(r#"[{"entryId":1}]"#, &field("number", "entryId", "string"));
    check_undecodable(r#"[{"contentType":true}]"#, &field("bool", "contentType", "string"));
    check_undecodable(&entry(r#""metadata":{"k":5}"#), &field("number", "metadata", "string"));
    check_undecodable(&entry(r#""metadata":"k""#), &field("string", "metadata", "map[string]string"));
}

#[test]
fn an_entry_may_have_metadata() {
    let with = |metadata: &str| {
        let body = entry(&format!(r#""contentType":"application/json","metadata":{metadata}"#));
        read(&Bytes::from(body)).expect("an entry").remove(0).metadata
    };
    assert_eq!(with("null"), None);
    assert_eq!(with("{}"), Some(Vec::new()));
    let expect = vec![("a".to_owned(), "2".to_owned()), ("b".to_owned(), String::new())];
    assert_eq!(with(r#"{"a":"1","a":"2","b":null}"#), Some(expect));
}

#[test]
fn entries_are_bounded() {
    let body = |count: usize| {
        let entries = (0..count).map(|id| format!(r#"{{"entryId":"{id}","contentType":"application/json"}}"#));
        Bytes::from(format!("[{}]", entries.collect::<Vec<_>>().join(",")))
    };
    assert_eq!(read(&body(ENTRIES_MAX)).map(|entries| entries.len()), Ok(ENTRIES_MAX));
    let refused = read(&body(ENTRIES_MAX + 1));
    let bound = |why: &str| why.starts_with("more than 10000 entries");
    assert!(matches!(&refused, Err(EntriesError::Undecodable(why)) if bound(why)), "{refused:?}");
}

#[test]
fn json_is_not_copied() {
    let body = Bytes::from(entry(r#""contentType":"application/json","event":{"a":1}"#));
    let read = read(&body).expect("an entry");
    assert!(body.as_ptr_range().contains(&read[0].data.as_ptr()));
}
