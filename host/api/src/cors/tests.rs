//! Tests of `cors`: which pages, and what their browsers are told.

use http::Request;

use super::*;

fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/v1.0/publish/bus/t");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

/// The origin that is let in, for a request and for the question before it.
#[track_caller]
fn check(allowed: &str, origin: &str, expect: Option<&str>) {
    let origins = Origins::parse(allowed).expect("origins");
    let headers = origins.headers(&head("POST", &[("origin", origin)]));
    let told = |headers: &HeaderMap| {
        headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(told(&headers).as_deref(), expect, "{allowed} {origin}");
    assert_eq!(headers.get(header::VARY).expect("vary"), "origin");
    let question = [("origin", origin), ("access-control-request-method", "POST")];
    let answer = origins.preflight(&head("OPTIONS", &question)).expect("an answer");
    assert_eq!((answer.status().as_u16(), told(answer.headers()).as_deref()), (200, expect), "{allowed} {origin}");
}

#[test]
fn origins_are_all_or_listed() {
    assert_eq!(Origins::parse(""), None);
    assert_eq!(Origins::parse(" , "), None);
    check("*", "https://a.example", Some("*"));
    check("https://b.example,*", "https://a.example", Some("*"));
    check("https://a.example, https://b.example", "https://b.example", Some("https://b.example"));
    check("https://a.example", "https://A.example", Some("https://A.example"));
    check("https://a.example", "https://b.example", None);
    check("https://a.example", "https://a.example.evil", None);
    check("https://*.example", "https://a.example", Some("https://a.example"));
    check("https://*.example", "https://.exampl", None);
}

#[test]
fn a_preflight_tells_what_may_be_sent() {
    let question = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "dapr-api-token,content-type"),
    ];
    let answer = Origins::All.preflight(&head("OPTIONS", &question)).expect("an answer");
    let told = |name: HeaderName| answer.headers().get(name).map(HeaderValue::as_bytes);
    assert_eq!(told(header::ACCESS_CONTROL_ALLOW_METHODS), Some(&b"PUT"[..]));
    assert_eq!(told(header::ACCESS_CONTROL_ALLOW_HEADERS), Some(&b"dapr-api-token,content-type"[..]));
    assert_eq!(answer.headers().get_all(header::VARY).iter().count(), 3);
}

#[test]
fn what_is_no_preflight_goes_on() {
    assert!(Origins::All.preflight(&head("OPTIONS", &[("origin", "https://a.example")])).is_none());
    let asked = [("access-control-request-method", "PUT")];
    assert!(Origins::All.preflight(&head("GET", &asked)).is_none());
    let nobody = Origins::All.preflight(&head("OPTIONS", &asked)).expect("an answer");
    assert!(!nobody.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let odd = [("origin", "https://a.example"), ("access-control-request-method", "TRACE")];
    let odd = Origins::All.preflight(&head("OPTIONS", &odd)).expect("an answer");
    assert!(!odd.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}
