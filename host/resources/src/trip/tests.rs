//! Tests of `trip`: what conditions say about some counts, and which are none.

use super::*;

/// Ten attempts: four succeeded, then six failed.
const COUNTS: Counts =
    Counts { requests: 10, total_successes: 4, total_failures: 6, consecutive_successes: 0, consecutive_failures: 6 };

fn check(text: &str, met: bool) {
    let trip = Trip::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(trip.is_met(&COUNTS), met, "{text}");
    assert_eq!(format!("{trip:?}"), text);
}

fn check_error(text: &str, part: &str) {
    let error = Trip::parse(text).expect_err(text);
    assert!(error.contains(part), "{text}: {error}");
}

#[test]
fn conditions_over_the_counters() {
    check("consecutiveFailures > 5", true);
    check("consecutiveFailures>6", false);
    check("consecutiveFailures >= 6 && consecutiveSuccesses == 0", true);
    check("requests != 10 || totalSuccesses <= 4", true);
    check("totalFailures < 6", false);
    check("true", true);
    check("!(requests == 10)", false);
    check("!true || false", false);
}

#[test]
fn arithmetic_is_cel_s() {
    check("totalFailures * 100 / requests >= 60", true);
    check("totalFailures / requests > 0", false);
    check("double(totalFailures) / double(requests) > 0.59", true);
    check("double(totalFailures) / double(requests) > 0.61", false);
    check("int(6.9) == totalFailures", true);
    check("1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 % 4 == 3 && 5 - 2 - 1 == 2", true);
    check("-1 < 0 && - requests == -10", true);
    check("1e1 == 10.0 && .5 < 1.0", true);
}

#[test]
fn an_error_is_no_reason_to_trip() {
    check("requests / consecutiveSuccesses > 0", false);
    check("9223372036854775807 + requests > 0", false);
    check("requests / consecutiveSuccesses > 0 || requests == 10", true);
    check("requests == 10 || requests / consecutiveSuccesses > 0", true);
    check("!(requests / consecutiveSuccesses > 0 && false)", true);
}

#[test]
fn what_is_no_condition_says_why() {
    check_error("", "missing");
    check_error("requests", "is a number");
    check_error("consecutiveFailure > 5", "consecutiveFailure is none of requests");
    check_error("consecutiveFailures > ", "missing");
    check_error("consecutiveFailures > 5 5", "\"5\" is not understood");
    check_error("(requests > 1", "not closed");
    check_error("requests > 0.5", "between an int and a double");
    check_error("requests && true", "between an int and a condition");
    check_error("true > false", "between a condition and a condition");
    check_error("!requests", "before an int");
    check_error("-true", "before a condition");
    check_error("1 < 2 < 3", "between a condition and an int");
    check_error("inf > 1.0", "inf is none of");
    check_error("double(true) > 1.0", "takes a number");
    check_error(&"(".repeat(900), "nested");
    check_error(&"!".repeat(900), "nested");
    check_error(&"1".repeat(1001), "longer");
    check_error("\u{e4} > 5", "missing");
}

/// The longest chain there can be is worked out without deep recursion hurting anybody.
#[test]
fn a_long_chain_is_read_and_met() {
    check(&format!("{}true", "true&&".repeat(160)), true);
}
