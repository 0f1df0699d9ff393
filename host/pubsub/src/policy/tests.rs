//! Tests of `policy`: how many attempts, and how far apart.

use tokio::time::advance;
use whimbrel_resources::{Matching, Retry};

use super::*;

fn policy(backoff: Backoff, max_retries: Option<u32>) -> Policy {
    Policy { retry: Some(Retry { backoff, max_retries, matching: Matching::default() }), ..Policy::default() }
}

/// Plays a policy to its end, at most so many attempts, each of which takes no time.
async fn waits(policy: &Policy, attempts_max: usize) -> Vec<Duration> {
    let random = Random::seeded(7);
    let mut attempts = Attempts::new(policy, &random);
    let mut waits = Vec::new();
    while waits.len() < attempts_max {
        let last = attempts.is_last();
        assert_eq!(attempts.number() as usize, waits.len() + 1);
        let Some(wait) = attempts.advance() else {
            assert!(last, "not known to be the last");
            return waits;
        };
        assert!(!last, "known to be the last, and another follows");
        waits.push(wait);
        advance(wait).await;
    }
    waits
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_there_is_one_attempt() {
    assert_eq!(waits(&Policy::default(), 10).await, []);
    assert_eq!(waits(&policy(Backoff::Constant(Duration::from_secs(1)), Some(0)), 10).await, []);
}

#[tokio::test(start_paused = true)]
async fn so_many_retries_are_one_attempt_more() {
    let second = Duration::from_secs(1);
    assert_eq!(waits(&policy(Backoff::Constant(second), Some(4)), 10).await, [second; 4]);
    assert_eq!(waits(&policy(Backoff::Constant(second), None), 1000).await, [second; 1000]);
}

#[tokio::test(start_paused = true)]
async fn attempts_go_on_where_others_ended() {
    let (random, five) = (Random::seeded(7), policy(Backoff::Constant(Duration::from_secs(1)), Some(4)));
    assert_eq!((budget(&five), budget(&Policy::default())), (Some(5), None));
    assert_eq!(budget(&policy(Backoff::Constant(Duration::ZERO), None)), None);
    let mut attempts = Attempts::from(&five, &random, 4);
    assert!(!attempts.is_last());
    attempts.advance();
    assert!(attempts.is_last() && attempts.advance().is_none());
    assert!(Attempts::from(&five, &random, 9).is_last());
}

#[tokio::test(start_paused = true)]
async fn exponential_waits_grow_up_to_their_bound() {
    let bound = Duration::from_secs(5);
    let waits = waits(&policy(Backoff::Exponential(bound), Some(30)), 100).await;
    assert_eq!(waits.len(), 30);
    let mut expect = 0.5;
    for wait in &waits {
        let wait = wait.as_secs_f64();
        assert!(wait >= expect * 0.5 && wait <= (expect * 1.5_f64).min(5.0), "{wait} around {expect}");
        expect = (expect * 1.5_f64).min(5.0);
    }
    assert!(waits[29] >= Duration::from_millis(2500));
    assert!(waits.windows(2).any(|pair| pair[1] < pair[0]), "no spread: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn an_exponential_policy_gives_up_after_a_quarter_of_an_hour() {
    let waits = waits(&policy(Backoff::Exponential(Duration::from_secs(60)), None), 10_000).await;
    let total: Duration = waits.iter().sum();
    assert!(total <= Duration::from_secs(900) && total > Duration::from_secs(800), "{total:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_not_the_last_stays_so_however_long_it_takes() {
    let (random, policy) = (Random::seeded(1), policy(Backoff::Exponential(Duration::from_secs(1)), None));
    let mut attempts = Attempts::new(&policy, &random);
    assert!(!attempts.is_last());
    advance(Duration::from_secs(3600)).await;
    assert!(attempts.advance().is_some());
    assert!(attempts.is_last());
}

#[test]
fn doubling_waits_stay_within_their_bounds() {
    let (random, seconds) = (Random::seeded(3), Duration::from_secs);
    let mut waits = Doubling::new(seconds(1), seconds(5));
    for expect in [1, 2, 4, 5, 5] {
        let wait = waits.wait(&random);
        assert!(wait >= seconds(expect) / 2 && wait <= seconds(expect), "{wait:?} of {expect} s");
    }
    waits.reset();
    assert!(waits.wait(&random) <= seconds(1));
}
