//! Tests of `baggage`.

use super::*;

#[track_caller]
fn check_one(text: &str, valid: bool) {
    assert_eq!(check(text).is_ok(), valid, "{text}: {:?}", check(text));
}

#[test]
fn members_have_a_key_and_a_value() {
    check_one("a=1", true);
    check_one("a=", true);
    check_one(" a = 1 , b=2", true);
    check_one("a=b=c", true);
    check_one("a=%20%e4", true);
    check_one("a", false);
    check_one("a=1,", false);
    check_one(",a=1", false);
    check_one("=1", false);
    check_one("a b=1", false);
    check_one("a=1 2", false);
    check_one("a=\"1\"", false);
    check_one("a=%zz", false);
    check_one("a=\\", false);
}

#[test]
fn properties_may_be_keys_alone() {
    check_one("a=1;p", true);
    check_one("a=1;p=2; q ; r = 3", true);
    check_one("a=1;", false);
    check_one("a=1;=2", false);
    check_one("a;p=1", false);
    check_one("a=1;p=%", false);
}

#[test]
fn it_has_bounds() {
    check_one(&format!("a={}", "x".repeat(MEMBER_BYTES_MAX - 2)), true);
    check_one(&format!("a={}", "x".repeat(MEMBER_BYTES_MAX - 1)), false);
    check_one(&vec!["a=1"; MEMBERS_MAX].join(","), true);
    check_one(&vec!["a=1"; MEMBERS_MAX + 1].join(","), false);
    let member = format!("a={}", "x".repeat(MEMBER_BYTES_MAX - 2));
    check_one(&format!("{member},{member}"), false);
}

#[test]
fn what_is_empty_is_none_and_what_is_no_text_is_refused() {
    let with = |value: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(NAME, HeaderValue::from_bytes(value).expect("a header"));
        of(&headers).map(|found| found.cloned())
    };
    assert_eq!(of(&HeaderMap::new()), Ok(None));
    assert_eq!(with(b""), Ok(None));
    assert_eq!(with(b"a=1"), Ok(Some(HeaderValue::from_static("a=1"))));
    assert!(with(b"a=\xff").is_err());
}
