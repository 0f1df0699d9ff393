use super::*;

fn check(head: &str, payload: &str, is_it: impl Fn(&Option<Result<(), Failure>>) -> bool) {
    let msg = Msg { subject: "r", sid: 1, reply: None, head: head.as_bytes(), payload: payload.as_bytes() };
    let result = confirmed(msg, || "orders".to_owned());
    assert!(is_it(&result), "{head} {payload}: {result:?}");
}

#[test]
fn answers() {
    check("", r#"{"stream":"S","seq":1}"#, |result| *result == Some(Ok(())));
    check("", r#"{"stream":"S","seq":1,"duplicate":true,"domain":"d"}"#, |result| *result == Some(Ok(())));
    check("NATS/1.0 503\r\nNats-Subject: orders\r\n\r\n", "", Option::is_none);
    // Nothing that is no confirmation may count as one.
    for payload in
        ["", "{}", "+ACK", r#"{"stream":"","seq":1}"#, r#"{"stream":"S"}"#, r#"{"stream":"S","seq":0}"#, "[]"]
    {
        check("", payload, |result| matches!(result, Some(Err(Failure::Unknown(_)))));
    }
    check("NATS/1.0 408 Timeout\r\n\r\n", "", |result| matches!(result, Some(Err(Failure::Unknown(_)))));
    let full =
        r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}"#;
    check("", full, |result| matches!(result, Some(Err(Failure::Throttled(_)))));
}
