//! Byte fixtures, and a peer that means harm.

use super::*;

/// What came out of the bytes, written down: `E` an error, numbers, strings, arrays in brackets, `~` the null.
fn shown(reply: Reply<'_>) -> String {
    if let Some(text) = reply.error() {
        return format!("E{text}");
    }
    if let Some(number) = reply.integer() {
        return number.to_string();
    }
    if let Some(bytes) = reply.bytes() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match reply.items() {
        Some(items) => format!("[{}]", items.map(shown).collect::<Vec<_>>().join(" ")),
        None => "~".to_owned(),
    }
}

/// Feeds the bytes in pieces of one size.
fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<String>, Malformed> {
    let mut decoder = Decoder::default();
    let mut replies = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.room().extend_from_slice(piece);
        while let Some(parsed) = decoder.next()? {
            replies.push(shown(decoder.reply(&parsed)));
        }
    }
    Ok(replies)
}

#[test]
fn replies_come_out_whole_however_they_arrive() {
    let check = |bytes: &[u8], expected: &[&str]| {
        for piece in [1, 2, 3, 7, 1000] {
            let replies = decoded(bytes, piece).unwrap();
            assert_eq!(replies, expected, "{:?} in pieces of {piece}", String::from_utf8_lossy(bytes));
        }
    };
    check(b"+OK\r\n", &["OK"]);
    check(b"+OK\r\n:7\r\n$3\r\na\r\n\r\n", &["OK", "7", "a\r\n"]);
    check(b"-ERR no\r\n", &["EERR no"]);
    check(b":-5\r\n", &["-5"]);
    check(b"$0\r\n\r\n", &[""]);
    check(b"$-1\r\n*-1\r\n", &["~", "~"]);
    check(b"*0\r\n+a\r\n", &["[]", "a"]);
    check(b"*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n$1\r\nx\r\n:9\r\n", &["[[1 []] [x]]", "9"]);
    check(b"*1\r\n*2\r\n$1\r\nt\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n", &["[[t [[1-0 ~]]]]"]);
    check(b"$2\r\nab", &[]);
    check(b"*3\r\n:1\r\n", &[]);
}

#[test]
fn a_hostile_peer_is_refused() {
    let check = |bytes: &[u8], expected: Malformed| {
        for piece in [1, 4096] {
            assert_eq!(
                decoded(bytes, piece),
                Err(expected),
                "{:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
            );
        }
    };
    check(b"HTTP/1.1 400 Bad Request\r\n", Malformed::Garbage);
    check(b"_\r\n", Malformed::Garbage);
    check(b"%1\r\n+a\r\n+b\r\n", Malformed::Garbage);
    check(b"\0\0\0\0", Malformed::Garbage);
    check(b"+OK\n", Malformed::Garbage);
    check(b"$3\r\nabcde", Malformed::Garbage);
    check(b"$-2\r\n", Malformed::Garbage);
    check(b"$+3\r\n", Malformed::Garbage);
    check(b"$\r\n", Malformed::Garbage);
    check(b"*x\r\n", Malformed::Garbage);
    check(b":x\r\n", Malformed::Garbage);
    check(b"$2147483647\r\n", Malformed::TooLarge);
    check(b"*2147483647\r\n", Malformed::TooLarge);
    check(b"$99999999999999999999999\r\n", Malformed::TooLarge);
    check(&b"*1\r\n".repeat(DEPTH_MAX + 1), Malformed::TooLarge);
    check(&b"*1\r\n".repeat(100_000), Malformed::TooLarge);
    check(&[b'+'; LINE_MAX_BYTES + 2], Malformed::TooLarge);
    check(&b"*1048575\r\n".repeat(2), Malformed::TooLarge);
}

/// Bytes at random, and sound replies with bytes at random in them: never a panic, and never more elements than bytes.
#[test]
fn noise_never_panics() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let sound = b"*2\r\n*2\r\n$1\r\nt\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\ndata\r\n$1\r\nx\r\n:12\r\n-ERR x\r\n";
    let mut errors = 0;
    for _ in 0..20_000 {
        let mut bytes = sound.to_vec();
        for _ in 0..random() % 4 {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = b"*$:+-0123456789\r\nx"[usize::try_from(random()).unwrap() % 18];
        }
        errors += usize::from(decoded(&bytes, 1 + usize::try_from(random() % 50).unwrap()).is_err());
    }
    assert!(errors > 1000, "the noise was harmless: {errors}");
}

#[test]
fn a_large_buffer_is_given_back() {
    let mut decoder = Decoder::default();
    let mut bytes = b"$4000000\r\n".to_vec();
    bytes.resize(4_000_010, b'x');
    bytes.extend_from_slice(b"\r\n");
    decoder.room().extend_from_slice(&bytes);
    assert!(decoder.next().unwrap().is_some());
    assert_eq!(decoder.room().capacity(), 0);
}

#[test]
fn commands() {
    let mut out = Vec::new();
    command(&mut out, &[b"PING", b""]);
    number(&mut out, 1_234_567_890_123);
    assert_eq!(out, b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n$13\r\n1234567890123\r\n");
}

#[test]
fn ids() {
    let check = |text: &str, expected: Option<(u64, u64)>| {
        let expected = expected.map(|(millis, sequence)| EntryId { millis, sequence });
        assert_eq!(EntryId::parse(text.as_bytes()), expected, "{text}");
        if let Some(id) = expected {
            assert_eq!(id.with_text(|written| String::from_utf8_lossy(written).into_owned()), text);
        }
    };
    check("1700000000000-0", Some((1_700_000_000_000, 0)));
    check("18446744073709551615-18446744073709551615", Some((u64::MAX, u64::MAX)));
    check("0-0", Some((0, 0)));
    check("18446744073709551616-0", None);
    check("12", None);
    check("-", None);
    check("a-b", None);
    let last = EntryId { millis: 4, sequence: u64::MAX };
    assert_eq!(last.next(), EntryId { millis: 5, sequence: 0 });
    assert_eq!(EntryId::default().next(), EntryId { millis: 0, sequence: 1 });
}
