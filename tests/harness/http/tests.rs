//! What was answered is what is read, however it was sent.

use super::*;

fn check(answer: &[u8], expect: Option<(u16, &str)>) {
    let parsed = parse(answer).ok().map(|answer| (answer.status, answer.text()));
    let expect = expect.map(|(status, body)| (status, body.to_owned()));
    assert_eq!(parsed, expect, "{}", String::from_utf8_lossy(answer));
}

#[test]
fn reads_answers_with_and_without_chunks() {
    check(b"HTTP/1.1 204 No Content\r\n\r\n", Some((204, "")));
    check(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Some((200, "ok")));
    check(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n!!!\r\n0\r\n\r\n",
        Some((200, "ok!!!")),
    );
    check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nok", None);
    check(b"HTTP/1.1 200 OK\r\ncontent-", None);
    check(b"", None);
    check(b"-ERR no\r\n", None);
}
