//! Tests of `ledger`.

use super::*;

#[test]
fn what_is_not_known_goes_by_the_brokers_count() {
    for (count, expect) in [(None, 1), (Some(0), 1), (Some(1), 1), (Some(3), 3)] {
        assert_eq!(Ledger::default().begin("m", count, 1), expect, "{count:?}");
    }
}

#[test]
fn what_is_known_goes_on_where_it_was() {
    let ledger = Ledger::default();
    assert_eq!(ledger.begin("m", Some(1), 1), 1);
    assert_eq!(ledger.next("m", 1, 1), Some(2));
    assert_eq!(ledger.next("m", 1, 2), Some(3));
    ledger.note("m", 1, 3);
    assert_eq!(ledger.begin("m", Some(2), 2), 4);
    ledger.done("m");
    assert_eq!(ledger.begin("m", None, 3), 1);
    ledger.with(|generations| assert!(generations.young.is_empty() && generations.old.is_empty()));
}

#[test]
fn an_earlier_course_learns_that_its_message_is_done() {
    let ledger = Ledger::default();
    assert_eq!(ledger.begin("m", Some(1), 1), 1);
    assert_eq!(ledger.begin("m", Some(2), 2), 2);
    ledger.done("m");
    assert_eq!(ledger.next("m", 1, 1), None);
    ledger.note("m", 1, 1);
    ledger.with(|generations| assert!(generations.young.is_empty() && generations.old.is_empty()));
}

#[test]
fn a_later_course_ends_an_earlier_one() {
    let ledger = Ledger::default();
    assert_eq!(ledger.begin("m", Some(1), 1), 1);
    assert_eq!(ledger.begin("m", Some(2), 2), 2);
    assert_eq!(ledger.next("m", 1, 1), None);
    assert_eq!(ledger.next("m", 2, 2), Some(3));
    ledger.note("m", 1, 1);
    assert_eq!(ledger.begin("m", Some(3), 3), 4, "an earlier course lowers nothing");
}

#[test]
fn courses_that_nobody_counted_never_share_a_number() {
    let ledger = Ledger::default();
    assert_eq!((ledger.begin("m", None, 1), ledger.begin("m", None, 2)), (1, 1));
    assert_eq!(ledger.next("m", 1, 1), Some(2));
    assert_eq!(ledger.next("m", 2, 1), Some(3));
    assert_eq!(ledger.next("m", 1, 2), None);
}

#[test]
fn an_attempt_can_be_taken_back() {
    let ledger = Ledger::default();
    assert_eq!(ledger.begin("m", Some(4), 1), 4);
    ledger.take_back("m", 3);
    ledger.note("m", 1, 3);
    assert_eq!(ledger.begin("m", Some(5), 2), 5);
    ledger.take_back("m", 5);
    ledger.note("m", 2, 4);
    assert_eq!(ledger.begin("m", Some(6), 3), 5);
}

#[test]
fn what_never_comes_back_is_forgotten_in_the_end() {
    let ledger = Ledger::default();
    ledger.note("first", 1, 7);
    ledger.note("second", 1, 7);
    for number in 0..MESSAGES_MAX {
        ledger.note(&number.to_string(), 1, 1);
    }
    assert_eq!(ledger.begin("first", None, 2), 8, "the generation before is kept");
    for number in 0..=MESSAGES_MAX {
        ledger.note(&format!("later {number}"), 1, 1);
    }
    assert_eq!(ledger.begin("second", None, 3), 1);
    ledger.with(|generations| assert!(generations.young.len() + generations.old.len() <= 2 * MESSAGES_MAX));
}

/// It was not begun: whatever the broker counts, the next delivery's attempt is the one that was not made.
#[test]
fn what_was_held_is_charged_with_nothing() {
    let ledger = Ledger::default();
    for (held, next, attempt) in [(None, None, 1), (Some(1), Some(2), 1), (Some(3), Some(4), 3)] {
        let id = format!("{held:?}");
        ledger.hold(&id, held);
        ledger.hold(&id, next);
        assert_eq!(ledger.begin(&id, next, 1), attempt, "{held:?}");
        ledger.note(&id, 1, attempt);
        ledger.hold(&id, next);
        assert_eq!(ledger.begin(&id, next, 2), attempt + 1, "{held:?}");
    }
}

#[test]
fn redeliveries_count_where_that_is_asked() {
    for (value, expect) in [("true", true), (" True ", true), ("false", false), ("yes", false), ("", false)] {
        for name in ["countRedeliveries", "COUNTREDELIVERIES"] {
            let declared = crate::fakes::declared("t", None, &[(name, value)]);
            assert_eq!(counts_redeliveries(&declared), expect, "{name}: {value}");
        }
    }
    assert!(!counts_redeliveries(&crate::fakes::declared("t", None, &[])));
}
