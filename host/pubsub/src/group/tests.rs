//! Tests of `group`.

use whimbrel_resources::Bulk;

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

/// Unless its metadata says so itself, a subscription takes as much as fills its batches.
#[test]
fn batches_are_filled() {
    for (max_messages, metadata, unsettled) in
        [(5, None, 100), (100, None, 200), (9_000, None, 10_000), (100, Some(("maxUnsettled", "7")), 7)]
    {
        let bulk = Some(Bulk { max_messages, ..Bulk::default() });
        let declared = Subscription { bulk, ..fakes::declared("t", None, metadata.as_slice()) };
        assert_eq!(Concurrency::of(&declared).unsettled, unsettled, "{max_messages} {metadata:?}");
    }
}

fn admission(running: u32, per_key: bool) -> Admission {
    Admission::new(Concurrency { unsettled: 4, running, per_key }, Keys::default(), Places::default())
}

fn of_key(token: u64, key: Option<&str>) -> Arrived {
    let mut arrived = fakes::arrived(token, "m", None);
    arrived.message.key = key.map(str::to_owned);
    arrived
}

/// The next one's token, whether it has its key's turn, and the place it takes.
fn next(admission: &mut Admission) -> Option<(u64, bool, Place)> {
    admission.admit().map(|(arrived, place)| (arrived.token, place.has_turn(), place))
}

#[test]
fn no_more_run_at_once_than_the_limit() {
    let mut admission = admission(2, false);
    assert!(admission.has_room());
    admission.line_up((1..=4).map(|token| of_key(token, Some("k"))).collect());
    assert!(!admission.has_room());
    let (first, second) = (next(&mut admission), next(&mut admission));
    assert!(matches!((&first, &second), (Some((1, false, _)), Some((2, false, _)))));
    assert!(next(&mut admission).is_none());
    drop(second);
    assert!(matches!(next(&mut admission), Some((3, false, _))));
    assert_eq!(admission.rest().map(|arrived| arrived.token).collect::<Vec<_>>(), [4]);
    assert!(admission.has_room());
}

#[test]
fn a_key_waits_for_itself_and_for_nobody_else() {
    let mut admission = admission(9, true);
    admission.line_up(vec![of_key(1, Some("a")), of_key(2, Some("a")), of_key(3, Some("b"))]);
    assert!(admission.has_room(), "what waits for a key holds up no other");
    let first = next(&mut admission);
    assert!(matches!(first, Some((1, true, _))));
    let other = next(&mut admission);
    assert!(matches!(other, Some((3, true, _))));
    assert!(next(&mut admission).is_none(), "its key is taken");
    admission.line_up(vec![of_key(4, None)]);
    assert!(matches!(next(&mut admission), Some((4, false, _))), "no key, no turn");
    drop(first);
    assert!(matches!(next(&mut admission), Some((2, true, _))));
    admission.line_up((5..=8).map(|token| of_key(token, Some("b"))).collect());
    assert!(!admission.has_room());
}

#[test]
fn nothing_overtakes_when_a_feed_is_left() {
    for per_key in [false, true] {
        let mut admission = admission(9, per_key);
        admission.line_up(vec![of_key(1, Some("a"))]);
        admission.leave();
        assert_eq!(next(&mut admission).is_none(), per_key);
    }
}
