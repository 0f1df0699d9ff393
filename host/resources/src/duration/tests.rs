//! Durations as Go reads them, and those it refuses.

use std::time::Duration;

use super::{duration, duration_or_millis, go_duration, go_text};

#[test]
fn nanoseconds() {
    fn check(text: &str, expect: Option<i128>) {
        assert_eq!(go_duration(text), expect, "{text:?}");
    }
    check("0", Some(0));
    check("-0", Some(0));
    check("5s", Some(5_000_000_000));
    check("1m30s", Some(90_000_000_000));
    check("1.5h", Some(5_400_000_000_000));
    check(".5s", Some(500_000_000));
    check("5.s", Some(5_000_000_000));
    check("-3s", Some(-3_000_000_000));
    check("+3s", Some(3_000_000_000));
    check("100us", Some(100_000));
    check("100\u{b5}s", Some(100_000));
    check("100\u{3bc}s", Some(100_000));
    check("1h2m3s4ms5us6ns", Some(3_723_004_005_006));
    check("0.3333333333333333333h", Some(1_199_999_999_999));
    check("9223372036854775807ns", Some(i128::from(i64::MAX)));
    check("9223372036854775808ns", None);
    check("-9223372036854775808ns", Some(i128::from(i64::MIN)));
    check("99999999999999999999999999999999999999999h", None);
    for text in ["", "-", "+", "5", "s", ".", ".s", "5 s", "5S", "5d", "1m-5s", "5s ", "--5s", "\u{661}s", "5\u{e9}"] {
        check(text, None);
    }
}

#[test]
fn not_negative() {
    assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(duration("-250ms"), None);
    assert_eq!(duration("250"), None);
    assert_eq!(duration_or_millis("250"), Some(Duration::from_millis(250)));
    assert_eq!(duration_or_millis("-250"), None);
    assert_eq!(duration_or_millis("2s"), Some(Duration::from_secs(2)));
    assert_eq!(duration_or_millis("two"), None);
}

#[test]
fn as_go_prints_them() {
    for text in
        ["0s", "5s", "500ms", "1.5s", "1m0s", "1m30s", "1h0m0s", "27h2m3.000000004s", "1.5\u{b5}s", "10ms", "7ns"]
    {
        assert_eq!(duration(text).map(go_text).as_deref(), Some(text));
    }
}
