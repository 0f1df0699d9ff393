//! What RabbitMQ says, in its own words.

use super::*;

fn closed(code: u16, text: &str) -> Closed {
    Closed { code, text: text.to_owned() }
}

#[test]
fn closed_channels() {
    let check = |code, text: &str, kind: &str, says: &str| {
        let failure = format!("{:?}", of_closed(&closed(code, text), "queue \"q\""));
        assert!(
            failure.starts_with(&format!("Failure::{kind}")) && failure.contains(says) && failure.contains("q"),
            "{failure}"
        );
    };
    let inequivalent = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'quorum' but current is 'classic'";
    check(406, inequivalent, "Invalid", "Change metadata queueType");
    check(
        406,
        "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'q'",
        "Invalid",
        "metadata deletedWhenUnused",
    );
    check(406, "PRECONDITION_FAILED - inequivalent arg 'x-new' for queue 'q'", "Invalid", "Change the setting");
    check(
        406,
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. This timeout value can be configured",
        "Transient",
        "timed out",
    );
    check(
        403,
        "ACCESS_REFUSED - access to exchange 'q' in vhost '/' refused for user 'u'",
        "Unauthorized",
        "permission",
    );
    check(404, "NOT_FOUND - no exchange 'q' in vhost '/'", "Transient", "deleted");
    check(405, "RESOURCE_LOCKED - cannot obtain exclusive access", "Invalid", "another connection");
    check(541, "INTERNAL_ERROR", "Transient", "541");
}

#[test]
fn handshakes() {
    let check = |code, text: &str, kind: &str| {
        let failure = format!("{:?}", of_handshake(&closed(code, text), "u", "v"));
        assert!(failure.starts_with(&format!("Failure::{kind}")), "{failure}");
    };
    check(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN", "Unauthorized");
    check(530, "NOT_ALLOWED - vhost v not found", "Invalid");
    check(530, "NOT_ALLOWED - access to vhost 'v' refused for user 'u'", "Unauthorized");
    check(530, "NOT_ALLOWED - access to vhost 'v' refused for user 'u': connection limit (1) is reached", "Transient");
    check(541, "INTERNAL_ERROR - vhost 'v' is down", "Transient");
}

#[test]
fn size_limits() {
    let text = "PRECONDITION_FAILED - message size 4194305 is larger than configured max size 4194304";
    assert_eq!(size_limit(&closed(406, text)), Some(4_194_304));
    assert_eq!(size_limit(&closed(406, "PRECONDITION_FAILED - something else")), None);
}
