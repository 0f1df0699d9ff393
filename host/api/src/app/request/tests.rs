//! What an event looks like to the app.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use whimbrel_pubsub::DeliveryInfo;

use super::{Fixed, METADATA_HEADERS_MAX, event, subscriptions};

fn fixed(token: Option<&'static str>) -> Fixed {
    Fixed { host: HeaderValue::from_static("127.0.0.1:80"), token: token.map(HeaderValue::from_static) }
}

fn info(metadata: &[(&str, &str)]) -> DeliveryInfo {
    let metadata = metadata.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    DeliveryInfo {
        pubsub: "bus".into(),
        topic: "t".into(),
        path: "/in".into(),
        attempt: 3,
        last_attempt: true,
        metadata: Arc::new(metadata),
        trace: None,
    }
}

/// All headers of a request but those that every request has, sorted.
fn headers(request: &Request<Full<Bytes>>) -> Vec<(String, String)> {
    let usual = ["host", "content-type", "pubsubname", "whimbrel-attempt", "whimbrel-last-attempt"];
    let all = request.headers().iter().filter(|(name, _)| !usual.contains(&name.as_str()));
    let mut all: Vec<_> =
        all.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    all.sort();
    all
}

fn check(metadata: &[(&str, &str)], expect: &[(&str, &str)]) {
    let request = event(&fixed(None), "/in", &info(metadata), &Bytes::new(), None).expect("a request");
    let expect: Vec<_> = expect.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(headers(&request), expect, "{metadata:?}");
}

#[test]
fn metadata_becomes_headers() {
    check(&[], &[]);
    check(&[("ttlInSeconds", "5")], &[("ttlinseconds", "5")]);
    check(&[("a", "1"), ("A", "2")], &[("a", "2")]);
    check(&[("cloudevent.id", "")], &[("cloudevent.id", "")]);
    check(&[("grpc-timeout", "1S")], &[("dapr-grpc-timeout", "1S")]);
    check(&[("trace-bin", "x"), ("Content-Length", "9"), ("content-type", "text/plain")], &[]);
    check(
        &[("Connection", "close"), ("Transfer-Encoding", "chunked"), ("host", "evil"), ("expect", "100-continue")],
        &[],
    );
    check(&[("dapr-api-token", "stolen"), ("destination-app-id", "x")], &[]);
    check(&[("", "x"), ("with space", "x"), (":path", "/x"), ("line", "a\r\nb: c")], &[]);
    check(&[("city", "Zürich")], &[("city", "Zürich")]);
    check(&[("tracestate", "a=b")], &[("tracestate", "a=b")]);
}

#[test]
fn a_flood_of_metadata_is_cut() {
    let many: Vec<(String, String)> = (0..100_000).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    let info = DeliveryInfo { metadata: Arc::new(many), ..info(&[]) };
    let request = event(&fixed(None), "/in", &info, &Bytes::new(), None).expect("a request");
    assert_eq!(headers(&request).len(), METADATA_HEADERS_MAX);
}

#[test]
fn ours_wins_over_the_metadata() {
    let info = info(&[("traceparent", "mine"), ("pubsubname", "mine"), ("whimbrel-attempt", "99")]);
    let trace = Some(HeaderValue::from_static("theirs"));
    let request = event(&fixed(Some("secret")), "/in?q=1", &info, &Bytes::from("{}"), trace).expect("a request");
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "/in?q=1");
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(header("traceparent"), Some("theirs"));
    assert_eq!(header("pubsubname"), Some("bus"));
    assert_eq!(header("dapr-api-token"), Some("secret"));
    assert_eq!(header("whimbrel-attempt"), Some("3"));
    assert_eq!(header("whimbrel-last-attempt"), Some("true"));
    assert_eq!(header("host"), Some("127.0.0.1:80"));
}

#[test]
fn the_question_for_subscriptions() {
    let request = subscriptions(&fixed(Some("secret")), "me");
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri(), "/dapr/subscribe");
    assert_eq!(request.headers().get("dapr-app-id"), Some(&HeaderValue::from_static("me")));
    assert_eq!(request.headers().get("content-type"), Some(&HeaderValue::from_static("application/json")));
    assert_eq!(request.headers().get("dapr-api-token"), Some(&HeaderValue::from_static("secret")));
}
