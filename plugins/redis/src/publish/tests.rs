//! What goes over the wire, and what comes of each reply.

use super::*;
use crate::failure::Lost;
use crate::protocol::Decoder;

fn message(topic: &str, data: &[u8], metadata: &[(&str, &str)]) -> Message {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Message { topic: topic.to_owned(), key: None, data: data.to_vec(), metadata }
}

#[test]
fn commands() {
    let check = |message: &Message, limit, expected: &str| {
        let mut out = Vec::new();
        add(&mut out, message, Limit(limit));
        assert_eq!(String::from_utf8_lossy(&out).replace("\r\n", " "), expected);
    };
    check(&message("t", b"a", &[]), None, "*5 $4 XADD $1 t $1 * $4 data $1 a ");
    check(&message("t", b"", &[]), None, "*5 $4 XADD $1 t $1 * $4 data $0  ");
    let limit = Some((b"MAXLEN".as_slice(), 10));
    check(&message("t", b"a", &[]), limit, "*8 $4 XADD $1 t $6 MAXLEN $1 ~ $2 10 $1 * $4 data $1 a ");
    check(
        &message("t", b"a", &[("k", "v\""), ("k", "w")]),
        None,
        "*7 $4 XADD $1 t $1 * $4 data $1 a $8 metadata $9 {\"k\":\"w\"} ",
    );
}

#[test]
fn replies_are_matched_in_order() {
    let check = |refused: usize, replies: &str, lost: Option<Lost>, replicas: u32, expected: &str| {
        let topics = vec!["t".to_owned(); 3];
        let mut results: Results = vec![Ok(()); 3];
        if refused < 3 {
            results[refused] = Err(Failure::Invalid(String::new()));
        }
        let mut tally = Tally { topics, results, next: 0, replicas };
        let mut decoder = Decoder::default();
        decoder.room().extend_from_slice(replies.replace(' ', "\r\n").as_bytes());
        while let Some(parsed) = decoder.next().unwrap() {
            tally.take(Answer::Reply(decoder.reply(&parsed)));
        }
        if let Some(lost) = lost {
            assert!(tally.take(Answer::Lost(lost)));
        }
        let letter = |result: &Result<(), Failure>| match result {
            Ok(()) => 'o',
            Err(Failure::Unknown(_)) => 'u',
            Err(Failure::Transient(_)) => 't',
            Err(Failure::Invalid(_)) => 'i',
            Err(_) => 'e',
        };
        let seen: String = tally.results.iter().map(letter).collect();
        assert_eq!(seen, expected, "{replies}");
    };
    let unanswered = || Some(Lost::Unanswered(String::new()));
    check(9, "+1-0 +2-0 +3-0 ", None, 0, "ooo");
    check(9, "+1-0 -OOM +3-0 ", None, 0, "oeo");
    check(0, "+1-0 -OOM ", None, 0, "ioe");
    check(2, "-OOM +1-0 ", None, 0, "eoi");
    check(9, "+1-0 ", unanswered(), 0, "ouu");
    check(1, "+1-0 ", unanswered(), 0, "oiu");
    check(9, "", Some(Lost::Unsent(String::new())), 0, "ttt");
    check(9, "+1-0 +2-0 +3-0 :2 ", None, 2, "ooo");
    check(9, "+1-0 -OOM +3-0 :1 ", None, 2, "ueu");
    check(9, "+1-0 -OOM +3-0 -NOPERM ", None, 1, "ueu");
    check(9, "+1-0 -OOM ", unanswered(), 1, "ueu");
}

#[test]
fn what_cannot_be_sent_is_refused() {
    assert!(check(&message("t", b"", &[])).is_ok());
    assert!(matches!(check(&message("", b"x", &[])), Err(Failure::Invalid(_))));
    let large = message("t", &vec![0; MESSAGE_MAX_BYTES], &[("a", "b")]);
    assert!(matches!(check(&large), Err(Failure::Invalid(_))));
}
