//! The commands' parts, and that each announces as many as it has.

use super::*;

const PLACE: Place<'static> = Place { stream: "t", group: "g", consumer: "c" };

fn id(millis: u64) -> EntryId {
    EntryId { millis, sequence: 1 }
}

/// The parts of a command; it must hold exactly as many as it announces.
fn parts(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut lines = text.split("\r\n");
    let announced: usize = lines.next().unwrap().trim_start_matches('*').parse().unwrap();
    let parts: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with('$')).collect();
    assert_eq!(parts.len(), announced, "{parts:?}");
    parts.join(" ")
}

#[test]
fn commands() {
    let check = |write: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(parts(&out), expected);
    };
    let second = Some(Duration::from_secs(1));
    check(&|out| create_group(out, "t", "g", Start::Earliest), "XGROUP CREATE t g 0 MKSTREAM");
    check(&|out| read_new(out, "g", "c", 5, None, &["t"]), "XREADGROUP GROUP g c COUNT 5 STREAMS t >");
    check(
        &|out| read_new(out, "g", "c", 5, second, &["t", "u"]),
        "XREADGROUP GROUP g c COUNT 5 BLOCK 1000 STREAMS t u > >",
    );
    check(&|out| pending(out, PLACE, Pending::Own, id(3), 5), "XPENDING t g 3-1 + 5 c");
    check(&|out| pending(out, PLACE, Pending::Any, id(3), 5), "XPENDING t g 3-1 + 5");
    let idle = Pending::Idle(Duration::from_secs(1));
    check(&|out| pending(out, PLACE, idle, id(3), 5), "XPENDING t g IDLE 1000 3-1 + 5");
    check(&|out| take_over(out, PLACE, Duration::from_secs(1), &[id(3), id(4)]), "XCLAIM t g c 1000 3-1 4-1");
    check(&|out| groups(out, "t"), "XINFO GROUPS t");
    check(&|out| refresh(out, PLACE, &[id(3)]), "XCLAIM t g c 0 3-1 JUSTID");
    check(&|out| release(out, PLACE, &[id(3)], RELEASED), "XCLAIM t g c 0 3-1 IDLE 86400000 JUSTID");
    check(&|out| ack(out, PLACE, &[id(3), id(4)]), "XACK t g 3-1 4-1");
    check(&|out| look_up(out, "t", id(3)), "XRANGE t 3-1 3-1 COUNT 1");
    check(&|out| consumers(out, "t", "g"), "XINFO CONSUMERS t g");
}
