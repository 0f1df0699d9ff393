//! Replies as Redis 6 and 7 write them.

use super::*;
use crate::protocol::Decoder;

/// Bytes of a nested list: words are strings, `:` begins a number, `~` is the null array, brackets are arrays.
fn reply(text: &str) -> Vec<u8> {
    fn list<'a>(words: &mut impl Iterator<Item = &'a str>) -> Vec<u8> {
        let mut items = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "]" => break,
                "[" => items.push(list(words)),
                "~" => items.push(b"*-1\r\n".to_vec()),
                _ if word.starts_with(':') => items.push(format!("{word}\r\n").into_bytes()),
                _ => items.push(format!("${}\r\n{word}\r\n", word.len()).into_bytes()),
            }
        }
        let mut bytes = format!("*{}\r\n", items.len()).into_bytes();
        bytes.extend(items.concat());
        bytes
    }
    list(&mut text.split_whitespace())
}

fn with<T>(text: &str, read: impl FnOnce(Reply<'_>) -> T) -> T {
    let mut decoder = Decoder::default();
    decoder.room().extend_from_slice(&reply(text));
    let parsed = decoder.next().unwrap().unwrap();
    read(decoder.reply(&parsed))
}

fn id(millis: u64) -> EntryId {
    EntryId { millis, sequence: 0 }
}

#[test]
fn what_was_read() {
    let text = r#"[ orders [ [ 1-0 [ data hello metadata {"a":"b","n":5} ] ] [ 2-0 ~ ] ] ] [ bad ] [ other [ ] ]"#;
    with(text, |reply| {
        let all: Vec<_> = streams(reply).map(|(name, list)| (name, entries(list).collect::<Vec<_>>())).collect();
        assert_eq!(all.len(), 2);
        let (name, read) = &all[0];
        assert_eq!((*name, read.len(), all[1].0, all[1].1.len()), ("orders", 2, "other", 0));
        assert_eq!((read[0].id, read[0].text, read[0].is_deleted()), (id(1), "1-0", false));
        assert!(read[1].is_deleted());
        let message = read[0].message("orders");
        assert_eq!(message.data, b"hello");
        assert_eq!(message.metadata, [("a".to_owned(), "b".to_owned()), ("n".to_owned(), "5".to_owned())]);
    });
}

#[test]
fn entries_of_other_programs() {
    let check = |fields: &str, data: &str, pairs: usize| {
        with(&format!("[ 1-0 [ {fields} ] ]"), |reply| {
            let message = entries(reply).next().unwrap().message("t");
            assert_eq!((message.data.as_slice(), message.metadata.len()), (data.as_bytes(), pairs), "{fields}");
        });
    };
    check("data x", "x", 0);
    check("colour red", "", 0);
    check("", "", 0);
    check("data x metadata null", "x", 0);
    check("data x metadata [1]", "x", 0);
    check("data x metadata {\"a\":", "x", 0);
    check("metadata {\"a\":\"b\"} data x", "x", 1);
    check("data", "", 0);
}

#[test]
fn what_is_pending() {
    let entry = |millis, idle, count| Unacked { id: id(millis), idle: Duration::from_millis(idle), count };
    let check = |text: &str, expected: &[Unacked]| assert_eq!(with(text, unacked), expected, "{text}");
    check("[ 1-0 c :12 :3 ] [ 2-0 c :-1 :1 ]", &[entry(1, 12, 3), entry(2, 0, 1)]);
    check("[ 1-0 c :12 ] [ x c :1 :1 ]", &[]);
    check("", &[]);
}

#[test]
fn consumers_of_a_group() {
    with("[ name a pending :2 idle :50 inactive :60 ] [ name b pending :0 idle :7 ] [ name ]", |reply| {
        let seen = consumers(reply);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], Consumer { name: "a".into(), pending: 2, idle_millis: 50 });
    });
}

#[test]
fn how_far_a_group_is_behind() {
    let check = |text: &str, expect: Option<u64>| with(text, |reply| assert_eq!(lag(reply, "me"), expect, "{text}"));
    let other = "[ name you consumers :1 pending :2 lag :9 ]";
    check(
        &format!("{other} [ name me consumers :1 pending :2 last-delivered-id 0-5 entries-read :5 lag :3 ]"),
        Some(3),
    );
    check("[ name me lag :0 ]", Some(0));
    check(&format!("{other} [ name me consumers :1 pending :2 last-delivered-id 0-5 ]"), None);
    check("[ name me entries-read ~ lag ~ ]", None);
    check("[ name me lag :-1 ]", None);
    check(other, None);
    check("", None);
}
