use super::*;

fn check(line: &[u8], content_type: Option<&str>, expected: &str) {
    let entry = entry(&(7, line.to_vec()), content_type).map_err(|error| format!("{error:#}"));
    match entry {
        Ok(entry) => {
            let entry: Value = serde_json::from_str(&entry).expect("JSON");
            assert_eq!(entry["entryId"], "7");
            assert_eq!(format!("{} {}", entry["contentType"].as_str().expect("text"), entry["event"]), expected);
        }
        Err(error) => assert!(error.starts_with(expected), "{error}"),
    }
}

#[test]
fn a_line_becomes_an_entry() {
    check(br#"{"a":1}"#, None, r#"application/json {"a":1}"#);
    check(b"7", None, "application/json 7");
    check(b"7", Some("text/plain"), r#"text/plain "7""#);
    check(b"a \"b\"", None, r#"text/plain "a \"b\"""#);
    check(b"\xff", None, r#"application/octet-stream "/w==""#);
    check(b"<a/>", Some("application/xml"), r#"application/xml "<a/>""#);
    check(b"no", Some("application/json; charset=utf-8"), "line 7 is no application/json; charset=utf-8");
    check(b"\xff", Some("text/plain"), "line 7 is no UTF-8 text");
    let event = br#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
    check(event, None, r#"application/cloudevents+json {"id":"1","source":"s","specversion":"1.0","type":"t"}"#);
}

#[tokio::test]
async fn lines_are_read_to_the_last() {
    let text = "one\r\n\n\ntwo\nthree";
    let (lines, mut read) = mpsc::channel(AHEAD_LINES_MAX);
    std::thread::spawn(move || forward(Box::new(text.as_bytes()), &lines));
    let mut all = Vec::new();
    while let Some(mut more) = batch(&mut read).await.expect("lines") {
        all.append(&mut more);
    }
    assert_eq!(all, [(1, b"one".to_vec()), (4, b"two".to_vec()), (5, b"three".to_vec())]);
}

#[tokio::test]
async fn a_line_without_an_end_is_refused() {
    let (lines, mut read) = mpsc::channel(AHEAD_LINES_MAX);
    std::thread::spawn(move || forward(Box::new(std::io::repeat(b'x')), &lines));
    assert!(batch(&mut read).await.is_err_and(|error| error.to_string().contains("line 1 is longer")));
    assert!(read.recv().await.is_none(), "nothing more is read");
}
