//! Tokens: used once, stale afterwards.

use super::*;

fn id(millis: u64) -> EntryId {
    EntryId { millis, sequence: 0 }
}

#[test]
fn a_token_is_good_once() {
    let mut ledger = Ledger::default();
    let token = ledger.hand(1, id(1), Some(1));
    assert_eq!(ledger.settle(token, State::Settling).map(|held| held.id), Some(id(1)));
    assert_eq!(ledger.settle(token, State::Settling), None);
    assert_eq!(ledger.len(), 1, "it counts until Redis has confirmed");
    assert!(ledger.close(token).is_some() && ledger.close(token).is_none());
    assert_eq!(ledger.len(), 0);
}

#[test]
fn a_slot_that_is_used_again_has_another_token() {
    let mut ledger = Ledger::default();
    let first = ledger.hand(1, id(1), None);
    ledger.close(first);
    let second = ledger.hand(2, id(2), None);
    assert_eq!(ledger.settle(first, State::Waiting), None);
    assert_eq!(ledger.get(second).map(|held| held.id), Some(id(2)));
    assert_eq!(ledger.slots.len(), 1);
}

#[test]
fn a_new_connection_forgets_tokens_and_keeps_what_waits() {
    let mut ledger = Ledger::default();
    let tokens: Vec<u64> = (1..=3).map(|n| ledger.hand(n, id(n), None)).collect();
    ledger.settle(tokens[1], State::Waiting);
    ledger.settle(tokens[2], State::Settling);
    ledger.forget_handed();
    assert_eq!(ledger.len(), 1);
    assert!(ledger.holds(id(2)) && !ledger.holds(id(1)) && !ledger.holds(id(3)));
    assert_eq!(ledger.settle(tokens[0], State::Settling), None);
}

#[test]
fn foreign_tokens_are_stale() {
    let mut ledger = Ledger::default();
    let check = |ledger: &mut Ledger, token| assert_eq!(ledger.settle(token, State::Settling), None);
    check(&mut ledger, 0);
    ledger.hand(1, id(1), None);
    for token in [0, 1, u64::MAX, 1 << 24 | 1, 2 << 24] {
        check(&mut ledger, token);
    }
}

#[test]
fn age() {
    let mut ledger = Ledger::default();
    let token = ledger.hand(5, id(1), None);
    assert!(Ledger::is_older(token, 6) && !Ledger::is_older(token, 5));
}
