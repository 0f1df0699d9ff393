//! What the members of a group tell each other through the broker, which does not look into it: the *subscription* that a
//! member joins with, and the *assignment* that the leader hands out (Kafka's "consumer" embedded protocol, versions 0
//! to 3; later ones begin the same way).
//!
//! Read by hand and not with the codec: that one trusts a length before it has seen the bytes.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::assignors::{Claim, Strategy, Topics};

/// The version that tells what a member owns, and since when.
const COOPERATIVE_VERSION: i16 = 2;

/// What a member joins with, for one of the strategies it offers.
pub(crate) fn subscription(strategy: Strategy, topics: &BTreeSet<String>, owned: &Topics, generation: i32) -> Bytes {
    let mut out = BytesMut::new();
    // Older clients stumble over what they do not know, so that the eager strategies say no more than they must.
    out.put_i16(if strategy.is_cooperative() { COOPERATIVE_VERSION } else { 0 });
    put_count(&mut out, topics.len());
    topics.iter().for_each(|topic| put_text(&mut out, topic));
    let user_data = user_data(strategy, owned, generation);
    put_count(&mut out, user_data.len());
    out.put_slice(&user_data);
    if strategy.is_cooperative() {
        put_topics(&mut out, owned);
        out.put_i32(generation);
    }
    out.freeze()
}

/// What a member said when it joined. `None`: it is not in the protocol's form.
pub(crate) fn claim(strategy: Strategy, member: &str, mut metadata: &[u8]) -> Option<Claim> {
    let from = &mut metadata;
    let version = from.try_get_i16().ok()?;
    let count = count(from, 2)?;
    let topics = (0..count).map(|_| text(from)).collect::<Option<BTreeSet<String>>>()?;
    let mut claim = Claim { member: member.to_owned(), topics, owned: Topics::new(), generation: -1 };
    let mut user_data = nullable_bytes(from)?;
    if version >= 1 {
        claim.owned = read_topics(from)?;
    }
    match strategy {
        Strategy::CooperativeSticky if version >= COOPERATIVE_VERSION => claim.generation = from.try_get_i32().ok()?,
        Strategy::CooperativeSticky => claim.generation = user_data.try_get_i32().unwrap_or(-1),
        Strategy::Sticky if user_data.has_remaining() => {
            claim.owned = read_topics(&mut user_data)?;
            claim.generation = user_data.try_get_i32().unwrap_or(-1);
        }
        Strategy::Sticky | Strategy::Range | Strategy::RoundRobin => {}
    }
    claim.owned.values_mut().for_each(|partitions| partitions.sort_unstable());
    Some(claim)
}

/// What the leader hands out to one member.
pub(crate) fn assignment(topics: &Topics) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_topics(&mut out, topics);
    out.put_i32(0);
    out.freeze()
}

/// What a member was given. Nothing at all is an empty part.
pub(crate) fn assigned(mut bytes: &[u8]) -> Option<Topics> {
    if bytes.is_empty() {
        return Some(Topics::new());
    }
    bytes.try_get_i16().ok()?;
    read_topics(&mut bytes)
}

/// What goes besides the protocol's own fields: the two sticky assignors of Kafka's clients look for it there.
fn user_data(strategy: Strategy, owned: &Topics, generation: i32) -> Bytes {
    let mut out = BytesMut::new();
    match strategy {
        Strategy::Sticky => {
            put_topics(&mut out, owned);
            out.put_i32(generation);
        }
        Strategy::CooperativeSticky => out.put_i32(generation),
        Strategy::Range | Strategy::RoundRobin => {}
    }
    out.freeze()
}

fn put_topics(out: &mut BytesMut, topics: &Topics) {
    put_count(out, topics.len());
    for (topic, partitions) in topics {
        put_text(out, topic);
        put_count(out, partitions.len());
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

fn put_text(out: &mut BytesMut, text: &str) {
    // A topic has at most 249 characters.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

fn read_topics(from: &mut &[u8]) -> Option<Topics> {
    let count_of_topics = count(from, 6)?;
    let mut topics = Topics::new();
    for _ in 0..count_of_topics {
        let topic = text(from)?;
        let count = count(from, 4)?;
        let partitions = (0..count).map(|_| from.try_get_i32().ok()).collect::<Option<Vec<i32>>>()?;
        topics.entry(topic).or_default().extend(partitions);
    }
    Some(topics)
}

/// How many follow, each of so many bytes at least: no more than there are.
fn count(from: &mut &[u8], each_bytes: usize) -> Option<usize> {
    let count = usize::try_from(from.try_get_i32().ok()?).ok()?;
    (count <= from.remaining() / each_bytes).then_some(count)
}

fn text(from: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(from.try_get_i16().ok()?).ok()?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn nullable_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = from.try_get_i32().ok()?;
    if length < 0 {
        return Some(&[]);
    }
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests;
