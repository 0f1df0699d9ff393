//! The budget that all bodies share. (Limits and waits are tested through a real server.)

use tokio::sync::Semaphore;

use super::{BodyError, grow};

/// Grows one body step by step; each step names its size in KiB, and what is left of the budget.
fn check(budget_kib: usize, steps: &[(u64, usize)], expect: &Result<(), BodyError>) {
    let budget = Semaphore::new(budget_kib);
    let mut share = None;
    for &(total_kib, left) in steps {
        let grown = grow(&mut share, total_kib * 1024, &budget);
        assert_eq!(budget.available_permits(), left, "{total_kib} KiB of {budget_kib}");
        if grown.is_err() {
            assert_eq!(&grown, expect, "{total_kib} KiB of {budget_kib}");
        }
    }
    let last = steps.last().map_or(Ok(()), |&(total_kib, _)| grow(&mut share, total_kib * 1024, &budget));
    assert_eq!(&last, expect, "{steps:?}");
    drop(share);
    assert_eq!(budget.available_permits(), budget_kib, "all of it is given back");
}

#[test]
fn bodies_share_a_budget() {
    check(100, &[(0, 100), (64, 36)], &Ok(()));
    check(100, &[(65, 35), (66, 34), (66, 34), (100, 0)], &Ok(()));
    check(100, &[(65, 35), (101, 35)], &Err(BodyError::Busy));
    check(10, &[(4, 6), (65, 6)], &Err(BodyError::Busy));
    check(100, &[(u64::MAX / 1024, 100)], &Err(BodyError::Busy));
}
