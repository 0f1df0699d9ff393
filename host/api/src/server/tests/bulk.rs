//! Bulk publish over HTTP, in the answers that a client sees.

use super::*;

const ENTRIES: &str = r#"[{"entryId":"1","event":{"a":1},"contentType":"application/json"},
    {"entryId":"2","event":"text","contentType":"text/plain"}]"#;

fn bulk(target: &str, body: &str) -> String {
    request("POST", target, "", body)
}

#[tokio::test]
async fn entries_are_published_on_both_paths() {
    let host = host().await;
    for path in ["/v1.0/publish/bulk/bus/t", "/v1.0-alpha1/publish/bulk/bus/t", "/v1.0/publish/bulk/b%75s/a/b"] {
        check(&host, &bulk(path, ENTRIES), 204, "").await;
        check(&host, &bulk(path, "[]"), 204, "").await;
    }
    check(&host, &request("PUT", "/v1.0/publish/bulk/bus/t", "", ENTRIES), 204, "").await;
    assert_eq!(host.topics(), ["t", "t", "t", "t", "a/b", "a/b", "t", "t"]);
    let stored = host.stored.lock().expect("no test panics with it");
    let event: serde_json::Value = serde_json::from_slice(&stored[0].data).expect("an event");
    assert_eq!((&event["data"], &event["datacontenttype"]), (&json!({"a": 1}), &json!("application/json")));
}

#[tokio::test]
async fn an_entry_that_fails_is_named() {
    let answer = |message: &Message| {
        if message.data.windows(4).any(|bytes| bytes == b"text") {
            return Err(BrokerError::Transient("10.0.0.7 is away".into()));
        }
        Ok(())
    };
    let host = host_with(fake_broker(TopicScopes::default(), answer), |_| {}).await;
    let reply = check(&host, &bulk("/v1.0/publish/bulk/bus/t", ENTRIES), 500, "ERR_PUBSUB_PUBLISH_MESSAGE").await;
    let why = "the broker did not take the message; it may be sent again";
    let expect = json!({
        "failedEntries": [{ "entryId": "2", "error": why }], "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE",
    });
    assert_eq!(reply.json(), expect);
}

#[tokio::test]
async fn a_broker_that_only_asks_to_wait_is_busy() {
    let host = host_with(fake_broker(TopicScopes::default(), |_| Err(BrokerError::Overloaded)), |_| {}).await;
    let reply = check(&host, &bulk("/v1.0/publish/bulk/bus/t", ENTRIES), 503, "ERR_PUBSUB_PUBLISH_MESSAGE").await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.json()["failedEntries"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_first_error_wins() {
    let scopes = TopicScopes { allowed: vec!["t".into()], ..TopicScopes::default() };
    let host = host_with(fake_broker(scopes, |_| Ok(())), |doors| doors.body_bytes_max = Some(1000)).await;
    let raw = "metadata.rawPayload=maybe";
    for (target, body, status, code) in [
        (format!("/v1.0/publish/bulk/nobus/t?{raw}"), "{", 404, "ERR_PUBSUB_NOT_FOUND"),
        (format!("/v1.0/publish/bulk/bus/c?{raw}"), "{", 400, "ERR_PUBSUB_REQUEST_METADATA"),
        ("/v1.0/publish/bulk/bus/c".to_owned(), "{", 400, "ERR_PUBSUB_EVENTS_SER"),
        ("/v1.0/publish/bulk/bus/c".to_owned(), ENTRIES, 403, "ERR_PUBSUB_FORBIDDEN"),
        ("/v1.0/publish/bulk/bus/c".to_owned(), "[]", 403, "ERR_PUBSUB_FORBIDDEN"),
    ] {
        check(&host, &bulk(&target, body), status, code).await;
    }
    let event = r#"[{"entryId":"1","event":[],"contentType":"application/cloudevents+json"}]"#;
    check(&host, &bulk("/v1.0/publish/bulk/bus/c", event), 500, "ERR_PUBSUB_CLOUD_EVENTS_SER").await;
    let large = bulk("/v1.0/publish/bulk/bus/t", &" ".repeat(1001));
    let reply = check(&host, &large, 400, "ERR_PUBSUB_EVENTS_SER").await;
    let message = "error when unmarshaling the request for topic t pubsub bus: stream too large";
    assert_eq!(reply.json()["message"], message);
    assert_eq!(host.topics(), Vec::<String>::new());
}

#[tokio::test]
async fn entries_that_cannot_be_read_have_details() {
    let host = host().await;
    let reply = check(
        &host,
        &bulk("/v1.0/publish/bulk/bus/t", r#"[{"event":1,"contentType":"application/json"}]"#),
        400,
        "ERR_PUBSUB_EVENTS_SER",
    )
    .await;
    let why = "entryId is duplicated or not present for entry";
    let message = format!("error marshaling events to bytes for topic t pubsub bus. error: {why}");
    let expect = json!({
        "errorCode": "ERR_PUBSUB_EVENTS_SER", "message": message,
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ResourceInfo", "description": message, "owner": "",
                "resource_name": "bus", "resource_type": "pubsub",
            },
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "dapr.io",
                "metadata": { "appID": "me", "error": why }, "reason": "DAPR_PUBSUB_MARSHAL_EVENTS",
            },
        ],
    });
    assert_eq!(reply.json(), expect);
    let reply = check(&host, &bulk("/v1.0/publish/bulk/bus/t", "["), 400, "ERR_PUBSUB_EVENTS_SER").await;
    let told = reply.json();
    let info = &told["details"][1];
    assert_eq!(
        (&info["metadata"], &info["reason"]),
        (&json!({ "appID": "me" }), &json!("DAPR_PUBSUB_UNMARSHAL_EVENTS"))
    );
    let mismatch = r#"[{"entryId":"1","event":1,"contentType":"text/plain"}]"#;
    let reply = check(&host, &bulk("/v1.0/publish/bulk/bus/t", mismatch), 400, "ERR_PUBSUB_EVENTS_SER").await;
    let why = "error: mismatch between contentType and event";
    let message = format!("error when marshalling cloud event envelope for topic t pubsub bus: {why}");
    assert_eq!(reply.json()["message"], message);
    assert_eq!(reply.json()["details"][1]["reason"], "DAPR_PUBSUB_MARSHAL_ENVELOPE");
}
