//! Addresses as settings spell them.

use super::addresses;

#[test]
fn spellings() {
    fn check(text: &str, expect: Option<&str>) {
        let found = addresses(text, 6379);
        let shown =
            found.map(|found| found.iter().map(|(host, port)| format!("{host} {port}")).collect::<Vec<_>>().join(", "));
        assert_eq!(shown.as_deref(), expect, "{text:?}");
    }
    check("localhost", Some("localhost 6379"));
    check("localhost:7000", Some("localhost 7000"));
    check("a, b:1 ,c:2", Some("a 6379, b 1, c 2"));
    check("", Some(""));
    check("redis://user:p@ss@host:7000/0", Some("host 7000"));
    check("redis://host", Some("host 6379"));
    check("amqps://host/vhost", Some("host 5671"));
    check("amqps://a,b:9", Some("a 5671, b 9"));
    check("https://example.org?x=1", Some("example.org 443"));
    check("::1", Some("::1 6379"));
    check("[::1]", Some("::1 6379"));
    check("[fe80::1]:7000", Some("fe80::1 7000"));
    check("127.0.0.1:6380", Some("127.0.0.1 6380"));
    for text in [
        "host:",
        "host:x",
        "host:0",
        "host:70000",
        ":6379",
        "a b",
        "*.local",
        "[::1",
        "[x]:1",
        "[::1]x",
        "a:b:c",
        "http://",
    ] {
        check(text, None);
    }
}
