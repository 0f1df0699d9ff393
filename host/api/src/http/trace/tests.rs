//! Which traces count.

use http::{HeaderMap, HeaderValue};
use whimbrel_pubsub::{Trace, TraceParent};

use super::{header, of};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn check(parent: &str, expect: Option<&str>) {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_str(parent).expect("a header value"));
    assert_eq!(of(&headers), Trace { parent: expect.and_then(TraceParent::parse), state: None }, "{parent}");
}

#[test]
fn parents() {
    check(PARENT, Some(PARENT));
    check(&format!(" {PARENT} "), Some(PARENT));
    check("", None);
    check("garbage", None);
    check(TraceParent::NONE.as_str(), None);
    assert_eq!(header(&TraceParent::parse(PARENT).expect("a parent")), PARENT);
    assert_eq!(header(&TraceParent::NONE), "00-00000000000000000000000000000000-0000000000000000-00");
}

fn check_state(parent: &str, states: &[&str], expect: Option<&str>) {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_str(parent).expect("a header value"));
    for state in states {
        headers.append("tracestate", HeaderValue::from_str(state).expect("a header value"));
    }
    assert_eq!(of(&headers).state.as_deref(), expect, "{states:?}");
}

#[test]
fn states() {
    check_state(PARENT, &["a=b"], Some("a=b"));
    check_state(PARENT, &["a=b", "c=d"], Some("a=b,c=d"));
    check_state(PARENT, &["a=b, c=d"], Some("a=b, c=d"));
    check_state(PARENT, &[], None);
    check_state(PARENT, &[""], None);
    check_state(PARENT, &["nonsense"], None);
    check_state(PARENT, &["a=b,=c"], None);
    check_state("garbage", &["a=b"], None);
    check_state(PARENT, &[&["a=b"; 33].join(",")], None);
}
