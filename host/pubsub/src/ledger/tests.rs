//! Tests of `ledger`.

use super::*;

#[test]
fn what_is_not_noted_goes_by_the_brokers_count() {
    let ledger = Ledger::default();
    assert_eq!(ledger.attempts("m", None), 0);
    assert_eq!(ledger.attempts("m", Some(1)), 0);
    assert_eq!(ledger.attempts("m", Some(3)), 2);
    assert_eq!(ledger.attempts("m", Some(0)), 0);
}

#[test]
fn the_larger_of_both_counts() {
    let ledger = Ledger::default();
    ledger.note("m", 5);
    assert_eq!(ledger.attempts("m", Some(2)), 5);
    assert_eq!(ledger.attempts("m", Some(9)), 8);
    ledger.note("m", 6);
    assert_eq!(ledger.attempts("m", None), 6);
    ledger.note("m", 2);
    assert_eq!(ledger.attempts("m", None), 6, "an earlier course lowers nothing");
    ledger.take_back("m", 5);
    assert_eq!(ledger.attempts("m", None), 6);
    ledger.take_back("m", 6);
    assert_eq!(ledger.attempts("m", None), 5);
    ledger.forget("m");
    assert_eq!(ledger.attempts("m", None), 0);
}

#[test]
fn what_never_comes_back_is_forgotten_in_the_end() {
    let ledger = Ledger::default();
    ledger.note("first", 1);
    for number in 0..MESSAGES_MAX {
        ledger.note(&number.to_string(), 1);
    }
    assert_eq!(ledger.attempts("first", None), 1, "the generation before is kept");
    for number in 0..=MESSAGES_MAX {
        ledger.note(&format!("later {number}"), 1);
    }
    assert_eq!(ledger.attempts("first", None), 0);
    ledger.with(|generations| assert!(generations.young.len() + generations.old.len() <= 2 * MESSAGES_MAX));
}
