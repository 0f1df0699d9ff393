use serde_json::json;

use super::*;

fn fate(what: &str, reason: &str) -> Fate {
    let text = str::to_owned;
    Fate {
        what: text(what),
        topic: text("orders"),
        event_id: text("e1"),
        message_id: text("m1"),
        attempt: 2,
        reason: text(reason),
    }
}

fn seen(body: &[u8]) -> Seen {
    Seen { metadata: vec![("k".to_owned(), "v".to_owned())], body: Body::of(body) }
}

#[test]
fn a_line_has_the_attempt_the_fate_and_the_event() {
    let delivered = fate("delivered", "");
    assert_eq!(delivered.line(Some(&seen(b"{\"a\":\n1}"))), r#"orders attempt 2 acknowledged {"a": 1}"#);
    assert_eq!(delivered.line(Some(&seen(b"plain"))), "orders attempt 2 acknowledged plain");
    assert_eq!(delivered.line(Some(&seen(b"\xff"))), "orders attempt 2 acknowledged base64:/w==");
    let dropped = fate("dropped", "it has expired");
    assert_eq!(dropped.line(None), r#"orders attempt 2 dropped (it has expired) event "e1", message "m1""#);
}

fn check_object(fate: &Fate, seen: Option<&Seen>, expected: &Value) {
    let object = fate.object(seen);
    assert_eq!(&serde_json::from_str::<Value>(&object).expect("JSON"), expected);
    assert!(!object.contains('\n'));
}

#[test]
fn an_object_has_them_too() {
    let common = |fate: &str| json!({ "topic": "orders", "id": "e1", "messageId": "m1", "attempt": 2, "fate": fate });
    let with = |mut object: Value, more: &[(&str, Value)]| {
        more.iter().for_each(|(name, value)| object[*name] = value.clone());
        object
    };
    let metadata = ("metadata", json!({ "k": "v" }));
    let (delivered, acknowledged) = (fate("delivered", ""), common("acknowledged"));
    let json = with(acknowledged.clone(), &[metadata.clone(), ("body", json!({ "a": 1 }))]);
    check_object(&delivered, Some(&seen(b"{\"a\":\n1}")), &json);
    let text = with(acknowledged.clone(), &[metadata.clone(), ("body", json!("plain"))]);
    check_object(&delivered, Some(&seen(b"plain")), &text);
    let bytes = with(acknowledged, &[metadata, ("bodyBase64", json!("/w=="))]);
    check_object(&delivered, Some(&seen(b"\xff")), &bytes);
    let dropped = with(common("dropped"), &[("reason", json!("it has expired"))]);
    check_object(&fate("dropped", "it has expired"), None, &dropped);
    let digits = delivered.object(Some(&seen(b"12345678901234567890123")));
    assert!(digits.contains("12345678901234567890123"), "{digits}");
}
