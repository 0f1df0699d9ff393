//! Tokens, slots and tags.

use super::*;

fn held(tag: u64) -> Held {
    Held { token: 0, tag, id: tag.to_string(), count: 1, state: State::Handed, since: Instant::now(), copy: None }
}

#[test]
fn a_token_is_good_once() {
    let mut ledger = Ledger::default();
    let first = ledger.insert(1, held(1));
    let second = ledger.insert(2, held(2));
    assert_eq!((ledger.len(), ledger.lowest_tag()), (2, Some(1)));
    assert!(ledger.remove(first).is_some() && ledger.remove(first).is_none());
    assert_eq!((ledger.len(), ledger.lowest_tag()), (1, Some(2)));
    // The slot is used again, the token is not.
    let third = ledger.insert(3, held(3));
    assert_ne!(third, first);
    assert!(ledger.handed(first).is_none() && ledger.handed(third).is_some() && ledger.handed(second).is_some());
    assert!(ledger.handed(u64::MAX).is_none());
}

#[test]
fn what_is_handed_again_has_a_new_token_and_the_old_tag() {
    let mut ledger = Ledger::default();
    let first = ledger.insert(1, held(5));
    ledger.handed(first).unwrap().state = State::Waiting;
    assert!(ledger.handed(first).is_none() && ledger.get(first).is_some());
    let again = ledger.hand_again(first, 2).map(|held| (held.token, held.tag, held.count)).unwrap();
    assert!(again.0 != first && again.1 == 5 && again.2 == 2);
    assert!(ledger.get(first).is_none() && ledger.handed(again.0).is_some());
    assert_eq!(ledger.clear().len(), 1);
    assert_eq!((ledger.len(), ledger.lowest_tag()), (0, None));
    assert!(ledger.get(again.0).is_none());
}
