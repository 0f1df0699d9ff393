//! Tests of `probe`, with paused time.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// How an app answers one probe.
#[derive(Clone, Copy)]
enum Answer {
    Good,
    Bad,
    Late,
}
use Answer::{Bad, Good, Late};

/// What is known of an app after each of these answers, with a threshold of three.
async fn check(answers: &[Answer], expect: &[bool]) {
    let probe = Probe::new("/healthz", 5 * SECOND, SECOND, 3).expect("a probe");
    let well = watch::Sender::new(false);
    let (left, known) = (RefCell::new(VecDeque::from(answers.to_vec())), RefCell::new(vec![]));
    let ask = || async {
        known.borrow_mut().push(*well.borrow());
        let answer = left.borrow_mut().pop_front();
        match answer {
            Some(Good) => true,
            Some(Bad) => false,
            Some(Late) => {
                tokio::time::sleep(2 * SECOND).await;
                true
            }
            None => std::future::pending().await,
        }
    };
    let wait = 5 * SECOND * u32::try_from(answers.len()).expect("a few") + SECOND / 2;
    timeout(wait, probe.watch(ask, &well)).await.expect_err("it never ends");
    assert_eq!(known.borrow()[1..], *expect);
}

#[tokio::test(start_paused = true)]
async fn an_app_is_ill_until_its_first_success_and_after_three_failures_in_a_row() {
    check(&[Bad, Late, Good, Bad, Bad], &[false, false, true, true, true]).await;
    check(&[Good, Bad, Late, Bad, Bad, Good], &[true, true, true, false, false, true]).await;
    check(&[Good, Bad, Bad, Good, Bad, Bad, Good], &[true; 7]).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_hears_twice_of_the_same() {
    let probe = Probe::new("/", 5 * SECOND, SECOND, 1).expect("a probe");
    let well = watch::Sender::new(false);
    let mut heard = well.subscribe();
    timeout(60 * SECOND, probe.watch(|| async { true }, &well)).await.expect_err("it never ends");
    assert!(*heard.borrow_and_update());
    timeout(60 * SECOND, probe.watch(|| async { true }, &well)).await.expect_err("it never ends");
    assert!(!heard.has_changed().expect("it is there"));
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let probe = |path, interval, timeout| Probe::new(path, interval, timeout, 3);
    assert_eq!(probe("healthz", SECOND, SECOND).map(|probe| probe.path), Ok("/healthz".to_owned()));
    assert_eq!(probe("/a b", SECOND, SECOND), Err(ProbeError::Path("/a b".into())));
    assert_eq!(probe("/", INTERVAL_MAX + SECOND, SECOND), Err(ProbeError::Interval));
    let overlap = ProbeError::Timeout { timeout: SECOND * 2, interval: SECOND };
    assert_eq!(probe("/", SECOND, SECOND * 2), Err(overlap));
    assert_eq!(Probe::new("/", SECOND, SECOND, 0).map(|probe| probe.threshold), Ok(1));
}
