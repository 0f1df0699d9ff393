//! Tests of `breaker`: when it opens, what it lets through, and when it closes.

use std::time::Duration;

use tokio::time::advance;
use whimbrel_resources::Trip;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);

fn template(max_requests: u32, interval: Option<Duration>, trip: &str) -> CircuitBreaker {
    CircuitBreaker { max_requests, interval, timeout: TIMEOUT, trip: Trip::parse(trip).expect("a condition") }
}

/// Plays attempts in turn. `+` and `-` are made and end well or badly; `o` and `p` are refused; `s` lets a second pass.
async fn check(template: &CircuitBreaker, course: &str) {
    let breaker = Breaker::default();
    let guard = Guard { breaker: &breaker, name: "bus", template };
    for (at, attempt) in course.chars().enumerate() {
        let refused = match (attempt, guard.enter()) {
            ('+' | '-', Ok(pass)) => {
                pass.end(attempt == '+');
                None
            }
            ('s', entered) => {
                drop(entered);
                advance(Duration::from_secs(1)).await;
                None
            }
            (_, entered) => entered.err().map(|refused| if refused == Refused::Probed { 'p' } else { 'o' }),
        };
        let expect = Some(attempt).filter(|attempt| matches!(attempt, 'o' | 'p'));
        assert_eq!(refused, expect, "{course} at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_opens_when_the_condition_is_met() {
    let usual = template(1, None, "consecutiveFailures > 5");
    check(&usual, "------ooo").await;
    check(&usual, "-----+-----+-----").await;
    check(&template(1, None, "totalFailures >= 3"), "-+-+-o").await;
    check(&template(1, None, "requests >= 4 && totalFailures * 100 / requests >= 50"), "-+--o").await;
}

#[tokio::test(start_paused = true)]
async fn after_its_time_one_attempt_finds_out() {
    let usual = template(1, None, "consecutiveFailures > 1");
    let minute = "s".repeat(60);
    check(&usual, &format!("--o{minute}+++-+--o")).await;
    check(&usual, &format!("--o{minute}-o{minute}+")).await;
    check(&usual, &format!("--o{}o", "s".repeat(59))).await;
}

#[tokio::test(start_paused = true)]
async fn so_many_successes_close_it() {
    let (two, minute) = (template(2, None, "consecutiveFailures > 1"), "s".repeat(60));
    // One success is not enough: the next failure opens it.
    check(&two, &format!("--{minute}+-o")).await;
    // Two are: then two failures are needed again.
    check(&two, &format!("--{minute}++--o")).await;
}

#[tokio::test(start_paused = true)]
async fn counts_are_cleared_where_an_interval_says_so() {
    check(&template(1, Some(Duration::from_secs(3)), "totalFailures > 1"), "-sss-sss-ss-o").await;
    check(&template(1, None, "totalFailures > 1"), "-sss-o").await;
}

/// More than may find out are refused, and one that is dropped gives its place to another.
#[tokio::test(start_paused = true)]
async fn half_open_lets_so_many_through_at_once() {
    let (breaker, template) = (Breaker::default(), template(2, None, "totalFailures > 0"));
    let guard = Guard { breaker: &breaker, name: "bus", template: &template };
    guard.enter().expect("closed").end(false);
    advance(TIMEOUT - Duration::from_secs(1)).await;
    assert_eq!(guard.enter().err(), Some(Refused::Open(Duration::from_secs(1))));
    advance(Duration::from_secs(1)).await;
    let (first, second) = (guard.enter().expect("a probe"), guard.enter().expect("a probe"));
    assert_eq!(guard.enter().err(), Some(Refused::Probed));
    drop(first);
    let third = guard.enter().expect("the place of the first");
    second.end(true);
    third.end(true);
    assert!(guard.enter().is_ok_and(|_| guard.enter().is_ok_and(|_| guard.enter().is_ok())), "closed");
}

/// What began before a change says nothing about the time after it.
#[tokio::test(start_paused = true)]
async fn an_attempt_from_before_does_not_count() {
    let (breaker, template) = (Breaker::default(), template(1, None, "totalFailures > 0"));
    let guard = Guard { breaker: &breaker, name: "bus", template: &template };
    let (early, late) = (guard.enter().expect("closed"), guard.enter().expect("closed"));
    early.end(false);
    advance(TIMEOUT).await;
    let probe = guard.enter().expect("a probe");
    late.end(false);
    probe.end(true);
    assert!(guard.enter().is_ok(), "the late failure opened it");
}
