//! Tests of `group`.

use super::*;
use crate::fakes;

#[test]
fn a_subscription_says_how_much_may_be_unsettled() {
    for (given, expect) in
        [(None, 100), (Some("7"), 7), (Some(" 7 "), 7), (Some("0"), 1), (Some("99999"), 10_000), (Some("x"), 100)]
    {
        let metadata: Vec<_> = given.map(|given| ("MaxUnsettled", given)).into_iter().collect();
        assert_eq!(max_unsettled(&fakes::declared("t", None, &metadata)), expect, "{given:?}");
    }
}

#[test]
fn no_more_run_at_once_than_the_limit() {
    let mut admission = Admission::new(2);
    assert!(admission.has_room());
    admission.line_up((1..=4).map(|token| fakes::arrived(token, "m", None)).collect());
    assert!(!admission.has_room());
    assert_eq!(admission.admit(0).map(|arrived| arrived.token), Some(1));
    assert_eq!(admission.admit(1).map(|arrived| arrived.token), Some(2));
    assert_eq!(admission.admit(2), None);
    assert_eq!(admission.rest().map(|arrived| arrived.token).collect::<Vec<_>>(), [3, 4]);
    assert!(admission.has_room());
}
