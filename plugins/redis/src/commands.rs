//! Every command this adapter sends about streams, as bytes. What the replies mean stands in `entries`.

use std::time::Duration;

use crate::protocol::{EntryId, array, bulk, command, number};

/// A group's consumer of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) stream: &'a str,
    pub(crate) group: &'a str,
    pub(crate) consumer: &'a str,
}

/// Deletes a consumer unless something is pending for it. In one step, for a consumer that is deleted takes what is
/// pending for it along.
const RETIRE: &str = "if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then \
                      return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end return -1";

/// The idle time an entry is given that anybody may claim at once.
pub(crate) const RELEASED: Duration = Duration::from_secs(24 * 3600);

/// Where a new group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the oldest entry.
    Earliest,
    /// At what comes from now on.
    Latest,
}

/// Creates a group, and the stream if there is none.
pub(crate) fn create_group(out: &mut Vec<u8>, stream: &str, group: &str, start: Start) {
    let id: &[u8] = if start == Start::Earliest { b"0" } else { b"$" };
    command(out, &[b"XGROUP", b"CREATE", stream.as_bytes(), group.as_bytes(), id, b"MKSTREAM"]);
}

/// Reads what no consumer of the group has read. `block`: how long to wait for something.
pub(crate) fn read_new(
    out: &mut Vec<u8>,
    group: &str,
    consumer: &str,
    count: usize,
    block: Option<Duration>,
    streams: &[&str],
) {
    array(out, 7 + 2 * usize::from(block.is_some()) + 2 * streams.len());
    read_group(out, group, consumer, count);
    if let Some(block) = block {
        bulk(out, b"BLOCK");
        number(out, millis(block).max(1));
    }
    bulk(out, b"STREAMS");
    for stream in streams {
        bulk(out, stream.as_bytes());
    }
    for _ in streams {
        bulk(out, b">");
    }
}

fn read_group(out: &mut Vec<u8>, group: &str, consumer: &str, count: usize) {
    for part in [b"XREADGROUP".as_slice(), b"GROUP", group.as_bytes(), consumer.as_bytes(), b"COUNT"] {
        bulk(out, part);
    }
    number(out, count as u64);
}

/// Whose pending entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// This consumer's.
    Own,
    /// Those of any consumer.
    Any,
    /// Those of any consumer that were left alone for so long. Redis 6.2 and later.
    Idle(Duration),
}

/// Entries that were delivered and not acknowledged, beginning with an id.
pub(crate) fn pending(out: &mut Vec<u8>, place: Place<'_>, whose: Pending, from: EntryId, count: usize) {
    let extra = match whose {
        Pending::Own => 1,
        Pending::Any => 0,
        Pending::Idle(_) => 2,
    };
    array(out, 6 + extra);
    bulk(out, b"XPENDING");
    bulk(out, place.stream.as_bytes());
    bulk(out, place.group.as_bytes());
    if let Pending::Idle(idle) = whose {
        bulk(out, b"IDLE");
        number(out, millis(idle));
    }
    from.with_text(|from| bulk(out, from));
    bulk(out, b"+");
    number(out, count as u64);
    if whose == Pending::Own {
        bulk(out, place.consumer.as_bytes());
    }
}

/// Takes pending entries over that were left alone for so long. Counts as a delivery.
pub(crate) fn take_over(out: &mut Vec<u8>, place: Place<'_>, idle: Duration, ids: &[EntryId]) {
    claim(out, place, idle, ids, &[]);
}

/// Tells the broker that this consumer still works on these. Does not count.
pub(crate) fn refresh(out: &mut Vec<u8>, place: Place<'_>, ids: &[EntryId]) {
    claim(out, place, Duration::ZERO, ids, &[b"JUSTID"]);
}

/// Makes these look as if they had been left alone for so long. Does not count.
pub(crate) fn release(out: &mut Vec<u8>, place: Place<'_>, ids: &[EntryId], idle: Duration) {
    let idle = millis(idle);
    claim(out, place, Duration::ZERO, ids, &[b"IDLE", itoa::Buffer::new().format(idle).as_bytes(), b"JUSTID"]);
}

fn claim(out: &mut Vec<u8>, place: Place<'_>, idle: Duration, ids: &[EntryId], options: &[&[u8]]) {
    array(out, 5 + ids.len() + options.len());
    bulk(out, b"XCLAIM");
    for part in [place.stream, place.group, place.consumer] {
        bulk(out, part.as_bytes());
    }
    number(out, millis(idle));
    write_ids(out, ids);
    for option in options {
        bulk(out, option);
    }
}

/// Acknowledges.
pub(crate) fn ack(out: &mut Vec<u8>, place: Place<'_>, ids: &[EntryId]) {
    array(out, 3 + ids.len());
    bulk(out, b"XACK");
    bulk(out, place.stream.as_bytes());
    bulk(out, place.group.as_bytes());
    write_ids(out, ids);
}

/// Whether an entry is still in the stream.
pub(crate) fn look_up(out: &mut Vec<u8>, stream: &str, id: EntryId) {
    array(out, 6);
    bulk(out, b"XRANGE");
    bulk(out, stream.as_bytes());
    id.with_text(|id| {
        bulk(out, id);
        bulk(out, id);
    });
    bulk(out, b"COUNT");
    bulk(out, b"1");
}

/// Deletes a consumer unless something is pending for it.
pub(crate) fn retire(out: &mut Vec<u8>, place: Place<'_>) {
    let Place { stream, group, consumer } = place;
    command(out, &[b"EVAL", RETIRE.as_bytes(), b"1", stream.as_bytes(), group.as_bytes(), consumer.as_bytes()]);
}

/// The consumers of a group.
pub(crate) fn consumers(out: &mut Vec<u8>, stream: &str, group: &str) {
    command(out, &[b"XINFO", b"CONSUMERS", stream.as_bytes(), group.as_bytes()]);
}

/// The groups of a stream.
pub(crate) fn groups(out: &mut Vec<u8>, stream: &str) {
    command(out, &[b"XINFO", b"GROUPS", stream.as_bytes()]);
}

fn write_ids(out: &mut Vec<u8>, ids: &[EntryId]) {
    for id in ids {
        id.with_text(|id| bulk(out, id));
    }
}

/// Whole milliseconds.
pub(crate) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
