//! What goes over the wire, and what is made of what comes.

use super::*;

fn frames(bytes: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut decoder = Decoder::new(4096);
    let mut seen = Vec::new();
    // A byte at a time: the shape in which bytes arrive must not matter.
    for byte in bytes {
        decoder.room().push(*byte);
        while let Some(frame) = decoder.next()? {
            seen.push(format!("{frame:?}"));
        }
    }
    Ok(seen)
}

#[test]
fn frames_are_cut_out_whole() {
    let mut bytes = Vec::new();
    heartbeat(&mut bytes);
    Request::ChannelOpen.write(&mut bytes, 7);
    assert_eq!(frames(&bytes).unwrap(), ["Heartbeat", "Method(7, [0, 20, 0, 10, 0])"]);
}

#[test]
fn what_is_no_frame_is_told_at_once() {
    let check = |bytes: &[u8], expected: Malformed| assert_eq!(frames(bytes), Err(expected), "{bytes:?}");
    check(b"H", Malformed::Garbage);
    check(b"-ERR", Malformed::Garbage);
    check(b"AMQP\x00\x01\x00\x00", Malformed::OtherVersion);
    check(b"\x15\x03\x01\x00\x02\x02\x16", Malformed::Garbage);
    check(&[1, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF], Malformed::TooLarge);
    check(&[1, 0, 0, 0, 0, 0, 0, 0xCD], Malformed::Garbage);
}

#[test]
fn methods() {
    let check = |payload: &[u8], expected: Result<Method, Malformed>| assert_eq!(Method::read(payload), expected);
    let ack = [&[0, 60, 0, 80], &7u64.to_be_bytes()[..], &[1]].concat();
    check(&ack, Ok(Method::Ack { tag: 7, multiple: true }));
    check(&ack[..11], Err(Malformed::Garbage));
    check(
        &[0, 20, 0, 40, 1, 0x96, 2, b'n', b'o', 0, 0, 0, 0],
        Ok(Method::ChannelClose(Closed { code: 406, text: "no".into() })),
    );
    let queue = [&[0, 50, 0, 11, 1, b'q'], &7u32.to_be_bytes()[..], &[0; 4]].concat();
    check(&queue, Ok(Method::Queue { messages: 7 }));
    check(&queue[..9], Err(Malformed::Garbage));
    check(&[0, 50, 0, 11, 9, b'q'], Err(Malformed::Garbage));
    check(&[0, 60, 0, 40], Err(Malformed::Garbage));
    check(&[0], Err(Malformed::Garbage));
    let start = [&[0, 10, 0, 10, 0, 9][..], &[0, 0, 0, 0], &[0, 0, 0, 5], b"PLAIN"].concat();
    check(&start, Ok(Method::Start { product: String::new(), mechanisms: "PLAIN".into() }));
}

/// Writes a message, and puts together what was written.
fn again(properties: &Properties, body: &[u8], frame_max: usize) -> Content {
    let mut bytes = Vec::new();
    let message = Publish { exchange: "e", routing_key: "k", properties, body, mandatory: true };
    publish(&mut bytes, 1, frame_max, &message);
    let mut decoder = Decoder::new(frame_max);
    decoder.room().extend_from_slice(&bytes);
    let mut assembly = Assembly::default();
    let Some(Frame::Method(1, method)) = decoder.next().unwrap() else { panic!("no method") };
    assert_eq!(method, b"\x00\x3c\x00\x28\x00\x00\x01e\x01k\x01");
    loop {
        let step = match decoder.next().unwrap().expect("more frames") {
            Frame::Header(1, payload) => assembly.header(payload),
            Frame::Body(1, payload) => assembly.body(payload),
            other => panic!("{other:?}"),
        };
        if let Step::Done(content) = step.unwrap() {
            return content;
        }
    }
}

#[test]
fn contents_are_split_and_put_together() {
    let properties = Properties {
        content_type: Some("a/b".into()),
        headers: vec![("x".into(), "1".into()), (String::new(), "ü".into())],
        delivery_mode: 2,
        priority: Some(9),
        correlation_id: Some("c".into()),
        expiration: Some("1000".into()),
        message_id: Some("m".into()),
        kind: Some("t".into()),
    };
    let body: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    for body in [&body[..], &body[..4088], &body[..4089], &body[..1], &[]] {
        for properties in [&properties, &Properties::default()] {
            let content = again(properties, body, 4096);
            assert_eq!((&content.properties, &content.body[..], content.size), (properties, body, body.len() as u64));
        }
    }
}

#[test]
fn a_body_that_is_not_as_announced_is_refused() {
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&3u64.to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    let mut assembly = Assembly::default();
    assert_eq!(assembly.body(b"x"), Err(Malformed::Garbage));
    assert_eq!(assembly.header(&header), Ok(Step::More));
    assert_eq!(assembly.header(&header), Err(Malformed::Garbage));
    assert_eq!(assembly.body(b"ab"), Ok(Step::More));
    assert_eq!(assembly.body(b"cd"), Err(Malformed::Garbage));
}

/// Whatever length is announced, no more is kept than there is room for, and the frames after it are not lost.
#[test]
fn a_message_that_is_too_large_is_passed_over() {
    let mut header = vec![0, 60, 0, 0];
    let size = MESSAGE_MAX_BYTES as u64 + 1;
    header.extend_from_slice(&size.to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    let mut assembly = Assembly::default();
    assembly.header(&header).unwrap();
    let part = vec![0; 1 << 20];
    for _ in 0..32 {
        assert_eq!(assembly.body(&part), Ok(Step::More));
    }
    let Step::Done(content) = assembly.body(&[0]).unwrap() else { panic!("more?") };
    assert!(content.is_too_large() && content.body.is_empty());
}

#[test]
fn headers_of_all_types_become_text_and_nested_ones_are_passed_over() {
    let mut entries = Vec::new();
    let mut entry = |name: &str, value: &[u8]| {
        entries.push(u8::try_from(name.len()).unwrap());
        entries.extend_from_slice(name.as_bytes());
        entries.extend_from_slice(value);
    };
    entry("bool", b"t\x01");
    entry("int", b"I\xff\xff\xff\xff");
    entry("long", b"l\x00\x00\x00\x00\x00\x00\x00\x07");
    entry("text", b"S\x00\x00\x00\x02hi");
    entry("bytes", b"x\x00\x00\x00\x01\xff");
    entry("nothing", b"V");
    // Deeper than any stack: a table in a table in a table.
    let mut nested = Vec::new();
    for _ in 0..100_000 {
        let mut outer = b"\x01nF".to_vec();
        outer.extend_from_slice(&u32::try_from(nested.len()).unwrap().to_be_bytes());
        if nested.len() > 60_000 {
            break;
        }
        outer.extend_from_slice(&nested);
        nested = outer;
    }
    let mut table = b"F".to_vec();
    table.extend_from_slice(&u32::try_from(nested.len()).unwrap().to_be_bytes());
    table.extend_from_slice(&nested);
    entry("table", &table);
    entry("last", b"b\x02");
    let mut seen = Vec::new();
    table::texts(&entries, |name, value| seen.push(format!("{name}={value}"))).unwrap();
    assert_eq!(seen, ["bool=true", "int=-1", "long=7", "text=hi", "bytes=\u{fffd}", "last=2"]);
    assert_eq!(table::texts(&entries[..20], |_, _| ()), Err(Malformed::Garbage));
    assert_eq!(table::texts(b"\x01aZ", |_, _| ()), Err(Malformed::Garbage));
}

#[test]
fn tables_are_written_as_rabbitmq_reads_them() {
    let mut out = Vec::new();
    let arguments =
        vec![("n", Argument::Number(5)), ("f", Argument::Flag(true)), ("s", Argument::Text("quorum".into()))];
    Request::Queue { name: "q", declare: Declare { durable: true, auto_delete: false }, arguments: &Table(arguments) }
        .write(&mut out, 1);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(text.contains("\u{1}ft\u{1}\u{1}nl\0\0\0\0\0\0\0\u{5}\u{1}sS\0\0\0\u{6}quorum"), "{text:?}");
    let mut out = Vec::new();
    let able = Table(vec![("capabilities", Argument::Flags(vec!["basic.nack"; 1]))]);
    Request::StartOk { properties: &able, mechanism: "PLAIN", response: b"" }.write(&mut out, 0);
    assert!(String::from_utf8_lossy(&out).contains("basic.nackt\u{1}"));
}

#[test]
fn a_question_for_a_queue_makes_none() {
    let mut out = Vec::new();
    Request::Count { queue: "q" }.write(&mut out, 7);
    let passive = [0, 50, 0, 10, 0, 0, 1, b'q', 1, 0, 0, 0, 0];
    assert_eq!(frames(&out).unwrap(), [format!("Method(7, {passive:?})")]);
}

/// No bytes make the decoder or the readers panic, or hold more than they were given.
#[test]
fn rubbish_is_refused_and_harms_nobody() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..rng.usize(..64)).map(|_| if rng.bool() { rng.u8(..12) } else { rng.u8(..) }).collect();
        Method::read(&bytes).ok();
        Assembly::default().header(&bytes).ok();
        table::texts(&bytes, |_, _| ()).ok();
        frames(&bytes).ok();
    }
}
