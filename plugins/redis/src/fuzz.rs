//! Targets for fuzzers: each takes any bytes, and panics only where a promise is broken. `tests/fuzz` drives them with seeds; a
//! coverage-guided fuzzer calls them as they are: `fuzz_target!(|bytes: &[u8]| whimbrel_redis::fuzz::codec(bytes))`.

use std::fmt::Write as _;

use crate::entries::{consumers, entries, streams, unacked};
use crate::protocol::{Decoder, Reply, command};

/// What a server sends, after a byte that says in how large pieces it arrives: the replies are the same as those of one
/// piece, and whatever they hold is read or passed over.
pub fn codec(bytes: &[u8]) {
    let Some((first, sent)) = bytes.split_first() else { return };
    let whole = replies(sent, sent.len().max(1));
    assert_eq!(replies(sent, usize::from(*first) + 1), whole, "pieces make no difference");
}

/// Parts of a command, separated by zero bytes: what is written is read.
pub fn commands(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let mut decoder = Decoder::default();
    command(decoder.room(), &parts);
    let parsed = decoder.next().ok().flatten().unwrap_or_else(|| panic!("a command of ours is no reply: {parts:?}"));
    let items =
        decoder.reply(&parsed).items().map(|items| items.map(|item| item.bytes().map(<[u8]>::to_vec)).collect());
    let read: Vec<Option<Vec<u8>>> = items.unwrap_or_default();
    assert!(read.iter().map(Option::as_deref).eq(parts.iter().map(|part| Some(*part))), "{parts:?} came as {read:?}");
    assert!(matches!(decoder.next(), Ok(None)), "nothing follows");
}

/// Every reply as text, and how it ended.
fn replies(sent: &[u8], piece: usize) -> Vec<String> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in sent.chunks(piece) {
        decoder.room().extend_from_slice(piece);
        loop {
            match decoder.next() {
                Ok(Some(parsed)) => {
                    let reply = decoder.reply(&parsed);
                    let mut shown = String::new();
                    show(reply, &mut shown);
                    look_at(decoder.reply(&parsed));
                    all.push(shown);
                }
                Ok(None) => break,
                Err(malformed) => {
                    all.push(malformed.to_string());
                    return all;
                }
            }
        }
    }
    all
}

fn show(reply: Reply<'_>, out: &mut String) {
    write!(out, "{:?} {:?} {:?} {}", reply.error(), reply.integer(), reply.bytes(), reply.is_null()).ok();
    if let Some(items) = reply.items() {
        out.push('[');
        items.for_each(|item| show(item, out));
        out.push(']');
    }
}

/// What the adapter looks for in replies.
fn look_at(reply: Reply<'_>) {
    let all = entries(reply).chain(streams(reply).flat_map(|(_, list)| entries(list)));
    for entry in all {
        if !entry.is_deleted() {
            assert!(entry.message("orders").data.len() <= entry.size(), "{}", entry.text);
        }
    }
    drop(consumers(reply));
    drop(unacked(reply));
}
