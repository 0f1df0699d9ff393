//! Tests of `group`.

use super::*;
use crate::fakes;

fn check(metadata: &[(&str, &str)], unsettled: u32, running: u32, per_key: bool) {
    let found = Concurrency::of(&fakes::declared("t", None, metadata));
    assert_eq!(found, Concurrency { unsettled, running, per_key }, "{metadata:?}");
}

#[test]
fn a_subscription_says_how_much_it_takes() {
    check(&[], 100, 100, false);
    check(&[("MaxUnsettled", "7")], 7, 7, false);
    check(&[("maxUnsettled", " 7 ")], 7, 7, false);
    check(&[("maxUnsettled", "0")], 1, 1, false);
    check(&[("maxUnsettled", "99999")], 10_000, 10_000, false);
    check(&[("maxUnsettled", "x")], 100, 100, false);
    check(&[("maxConcurrency", "8")], 100, 8, false);
    check(&[("maxUnsettled", "4"), ("maxConcurrency", "8")], 4, 4, false);
    check(&[("maxConcurrency", "0")], 100, 1, false);
    check(&[("orderPerKey", "True")], 100, 100, true);
    check(&[("orderPerKey", "no")], 100, 100, false);
}

fn admission(running: u32, per_key: bool) -> Admission {
    Admission::new(Concurrency { unsettled: 4, running, per_key }, Keys::default())
}

fn of_key(token: u64, key: Option<&str>) -> Arrived {
    let mut arrived = fakes::arrived(token, "m", None);
    arrived.message.key = key.map(str::to_owned);
    arrived
}

fn next(admission: &mut Admission, running: usize) -> Option<(u64, Option<Turn>)> {
    admission.admit(running).map(|(arrived, turn)| (arrived.token, turn))
}

#[test]
fn no_more_run_at_once_than_the_limit() {
    let mut admission = admission(2, false);
    assert!(admission.has_room());
    admission.line_up((1..=4).map(|token| of_key(token, Some("k"))).collect());
    assert!(!admission.has_room());
    assert!(matches!(next(&mut admission, 0), Some((1, None))));
    assert!(matches!(next(&mut admission, 1), Some((2, None))));
    assert!(next(&mut admission, 2).is_none());
    assert_eq!(admission.rest().map(|arrived| arrived.token).collect::<Vec<_>>(), [3, 4]);
    assert!(admission.has_room());
}

#[test]
fn a_key_waits_for_itself_and_for_nobody_else() {
    let mut admission = admission(9, true);
    admission.line_up(vec![of_key(1, Some("a")), of_key(2, Some("a")), of_key(3, Some("b"))]);
    assert!(admission.has_room(), "what waits for a key holds up no other");
    let first = next(&mut admission, 0);
    assert!(matches!(first, Some((1, Some(_)))));
    let other = next(&mut admission, 1);
    assert!(matches!(other, Some((3, Some(_)))));
    assert!(next(&mut admission, 2).is_none(), "its key is taken");
    admission.line_up(vec![of_key(4, None)]);
    assert!(matches!(next(&mut admission, 2), Some((4, None))), "no key, no turn");
    drop(first);
    assert!(matches!(next(&mut admission, 2), Some((2, Some(_)))));
    admission.line_up((5..=8).map(|token| of_key(token, Some("b"))).collect());
    assert!(!admission.has_room());
}

#[test]
fn nothing_overtakes_when_a_feed_is_left() {
    for per_key in [false, true] {
        let mut admission = admission(9, per_key);
        admission.line_up(vec![of_key(1, Some("a"))]);
        admission.leave();
        assert_eq!(next(&mut admission, 0).is_none(), per_key);
    }
}
