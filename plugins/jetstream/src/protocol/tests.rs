use super::*;

/// Feeds the bytes one at a time, so that every place to be cut is met; and all at once.
fn said(bytes: &[u8]) -> Vec<String> {
    let mut slowly = Vec::new();
    let mut decoder = Decoder::default();
    for byte in bytes {
        decoder.room().push(*byte);
        while let Some(op) = decoder.next().unwrap() {
            slowly.push(format!("{op:?}"));
        }
    }
    assert!(decoder.room().is_empty());
    let mut at_once = Vec::new();
    let mut decoder = Decoder::default();
    decoder.room().extend_from_slice(bytes);
    while let Some(op) = decoder.next().unwrap() {
        at_once.push(format!("{op:?}"));
    }
    assert_eq!(slowly, at_once);
    slowly
}

fn refused(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.room().extend_from_slice(bytes);
    assert!(decoder.next().is_err(), "{}", String::from_utf8_lossy(bytes));
}

#[test]
fn short_lines() {
    let all = said(b"PING\r\nPONG\r\n+OK\r\n-ERR 'Authorization Violation'\r\n");
    assert_eq!(all, ["Ping", "Pong", "Ok", "Err(\"Authorization Violation\")"]);
}

#[test]
fn info_with_a_host_name() {
    let mut decoder = Decoder::default();
    decoder.room().extend_from_slice(
        br#"INFO {"server_id":"A","host":"nats.local","port":4222,"max_payload":1048576,"connect_urls":["b:4222"],"new":[1]}"#,
    );
    decoder.room().extend_from_slice(b" \r\n");
    let Some(Op::Info(info)) = decoder.next().unwrap() else { panic!("no info") };
    assert_eq!((info.max_payload, info.connect_urls), (1 << 20, vec!["b:4222".to_owned()]));
}

#[test]
fn messages() {
    let plain = Msg { subject: "a.b", sid: 7, reply: None, head: b"", payload: b"\r\n\0\xff" };
    assert_eq!(said(b"MSG a.b 7 4\r\n\r\n\0\xff\r\n"), [format!("{:?}", Op::Msg(plain))]);
    let head = b"NATS/1.0\r\nA: b\r\n\r\n";
    let rich = Msg { subject: "a", sid: 1, reply: Some("r"), head, payload: b"x" };
    let bytes = [b"HMSG a 1 r 18 19\r\n".as_slice(), head, b"x\r\n"].concat();
    assert_eq!(said(&bytes), [format!("{:?}", Op::Msg(rich))]);
}

#[test]
fn what_is_not_nats() {
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
        b"-NOAUTH x\r\n",
        b"MSG a\r\n",
        b"MSG a x 1\r\nb\r\n",
        b"MSG a 1 999999999999\r\n",
        b"MSG a 1 r s 1\r\nb\r\n",
        b"HMSG a 1 5 4\r\n1234\r\n",
        b"MSG a 1 1\r\nbcd\r\n",
        b"INFO {\r\n",
        b"\xff\xfe\r\n",
        &[b'x'; 300 * 1024],
    ] {
        refused(bytes);
    }
}

#[test]
fn header_blocks() {
    let head = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 4\r\nno line\r\nX:  a: b \r\n\r\n";
    assert_eq!(status(head), Some(Status { code: 408, text: "Request Timeout" }));
    let pairs: Vec<_> = fields(head).map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["Nats-Pending-Messages=4", "X=a: b"]);
    assert_eq!(status(b"NATS/1.0\r\nA: b\r\n\r\n"), None);
    assert_eq!(status(b"NATS/1.0 100\r\n\r\n"), Some(Status { code: 100, text: "" }));
    assert_eq!(status(b""), None);
}

#[test]
fn what_a_client_says() {
    let mut out = Vec::new();
    subscribe(&mut out, "a.*", None, 1);
    subscribe(&mut out, "b", Some("g"), 2);
    unsubscribe(&mut out, 2);
    publish(&mut out, "a", Some("r"), b"hi");
    publish(&mut out, "a", None, b"");
    publish_with_headers(&mut out, "a", Some("r"), b"NATS/1.0\r\n\r\n", b"hi");
    let expected = "SUB a.* 1\r\nSUB b g 2\r\nUNSUB 2\r\nPUB a r 2\r\nhi\r\nPUB a 0\r\n\r\nHPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
