use super::*;
use std::collections::BTreeMap;

#[test]
fn the_commit_waits_at_a_hole() {
    let mut window = Window::at(5, "");
    assert!((5..9).all(|offset| window.hand(offset)));
    assert!(!window.ack(6));
    assert_eq!(window.committable(), 5);
    assert!(window.ack(5));
    assert_eq!(window.committable(), 7);
    assert!(!window.ack(5), "a second ack means nothing");
    assert!(window.ack(7) && window.ack(8));
    assert_eq!(window.committable(), 9);
}

#[test]
fn what_is_not_there_is_no_hole() {
    let mut window = Window::at(0, "");
    window.pass_to(3);
    assert_eq!(window.committable(), 3);
    assert!(window.hand(4));
    window.pass_to(10);
    assert_eq!((window.committable(), window.read()), (4, 10));
    assert!(window.ack(4));
    assert_eq!(window.committable(), 10);
}

#[test]
fn the_next_owner_knows_what_is_done_beyond_the_hole() {
    let mut window = Window::at(5, "");
    assert!((5..11).all(|offset| window.hand(offset)));
    for done in [5, 7, 8, 10] {
        window.ack(done);
    }
    assert_eq!((window.committable(), window.note().as_str()), (6, "w1:1,2,1,1"));
    let mut next = Window::at(6, &window.note());
    let handed: Vec<i64> = (6..13).filter(|offset| next.hand(*offset)).collect();
    assert_eq!(handed, [6, 9, 11, 12]);
    assert!(next.ack(6));
    assert_eq!(next.committable(), 9);
}

#[test]
fn a_note_is_passed_on_by_an_owner_that_did_nothing() {
    let window = Window::at(6, "w1:1,2,1,1");
    assert_eq!((window.committable(), window.note().as_str()), (6, "w1:1,2,1,1"));
}

#[test]
fn what_vanished_since_the_note_is_no_hole() {
    let mut window = Window::at(6, "w1:1,2,1,1");
    assert!(window.hand(6));
    window.pass_to(11);
    assert!(window.ack(6));
    assert_eq!(window.committable(), 11);
}

#[test]
fn nonsense_is_no_note() {
    let check = |note: &str| assert_eq!(Window::at(6, note), Window::at(6, ""), "{note}");
    for note in [
        "",
        "w1:",
        "w1:1",
        "w1:1,2,3",
        "w1:0,1",
        "w1:-1,1",
        "w1:1,x",
        "w2:1,1",
        "w1:1,9223372036854775807",
        "w1:9223372036854775807,1",
        "w1:1000000,1",
        "w1:1,1000000,1,1000000",
        "metadata of somebody else",
    ] {
        check(note);
    }
}

#[test]
fn a_long_note_is_cut_where_it_still_holds() {
    let mut window = Window::at(0, "");
    assert!((0..4000).all(|offset| window.hand(offset)));
    (0..4000).filter(|offset| offset % 2 == 1).for_each(|offset| {
        window.ack(offset);
    });
    let note = window.note();
    assert!(note.len() <= NOTE_MAX_BYTES && note.len() > NOTE_MAX_BYTES / 2, "{}", note.len());
    let mut next = Window::at(0, &note);
    let handed: Vec<i64> = (0..4000).filter(|offset| next.hand(*offset)).collect();
    assert!((0..4000).step_by(2).all(|open| handed.binary_search(&open).is_ok()), "an open one was lost");
    assert!(handed.len() < 4000);
}

/// The simplest thing that could be right: every offset and whether it is done.
#[derive(Default)]
struct Model {
    done: BTreeMap<i64, bool>,
}

impl Model {
    fn committable(&self, start: i64) -> i64 {
        let first = self.done.iter().find(|(_, done)| !**done).map(|(offset, _)| *offset);
        first.or_else(|| self.done.last_key_value().map(|(offset, _)| offset + 1)).unwrap_or(start)
    }
}

#[test]
fn it_agrees_with_the_model_over_many_owners() {
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let start = rng.i64(0..100);
        let (mut window, mut model) = (Window::at(start, ""), Model::default());
        let (mut mine, mut next) = (Vec::new(), start);
        for _ in 0..200 {
            match rng.u8(0..20) {
                0..9 => {
                    let handed = window.hand(next);
                    let done = *model.done.entry(next).or_insert(false);
                    assert_eq!(handed, !done, "seed {seed}, offset {next}");
                    mine.extend(handed.then_some(next));
                    next += 1;
                }
                9 => {
                    let to = next + rng.i64(0..4);
                    window.pass_to(to);
                    (next..to).for_each(|gone| {
                        model.done.insert(gone, true);
                    });
                    next = to;
                }
                10 => {
                    // Another owner, who knows the commit and the note.
                    let committed = window.committable();
                    window = Window::at(committed, &window.note());
                    (mine, next) = (Vec::new(), committed);
                }
                _ if !mine.is_empty() => {
                    let acked = mine.swap_remove(rng.usize(0..mine.len()));
                    let before = window.committable();
                    let moved = window.ack(acked);
                    model.done.insert(acked, true);
                    assert_eq!(moved, window.committable() > before, "seed {seed}");
                }
                _ => {}
            }
            assert_eq!(window.committable(), model.committable(start), "seed {seed}");
        }
    }
}
