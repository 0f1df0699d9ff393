//! Which traces count.

use http::{HeaderMap, HeaderValue};
use whimbrel_pubsub::Trace;

use super::{NONE, header, of};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn check(parent: &str, valid: bool) {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_str(parent).expect("a header value"));
    let expect = valid.then(|| parent.trim().to_owned());
    assert_eq!(of(&headers), Trace { parent: expect, state: None }, "{parent}");
    assert_eq!(header(Some(parent)), if valid { parent } else { NONE }, "{parent}");
}

#[test]
fn parents() {
    check(PARENT, true);
    check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02", true);
    check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", true);
    check("", false);
    check("garbage", false);
    check(NONE, false);
    check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
    check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false);
    check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more", false);
    check("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
    check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
    check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
    check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0", false);
    check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false);
    assert_eq!(header(None), NONE);
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
