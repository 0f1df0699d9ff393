use super::*;

#[test]
fn the_subject_of_a_permission_error() {
    let check = |error, what, subject| assert_eq!(denied_subject(error, what), subject);
    check("Permissions Violation for Publish to \"a.b\"", "Publish", Some("a.b"));
    check(
        "Permissions Violation for Subscription to \"_INBOX.x.>\" using queue \"g\"",
        "Subscription",
        Some("_INBOX.x.>"),
    );
    check("Permissions Violation for Publish to \"a.b\"", "Subscription", None);
    check("Authorization Violation", "Publish", None);
}

#[test]
fn errors() {
    let of = |code, err_code| of_api(&ApiError { code, err_code, description: "why".to_owned() }, "publish");
    assert!(matches!(of(503, 10077), Failure::Throttled((text, 0)) if text.contains("10077")));
    assert!(matches!(of(400, 10054), Failure::Invalid(_)));
    assert!(matches!(of(503, 10008), Failure::Transient(_)));
    assert!(matches!(of(404, 10059), Failure::Transient(_)));
    assert!(matches!(of(400, 10109), Failure::Permanent(_)));
    assert!(matches!(of(503, 10039), Failure::Permanent(text) if text.contains("Enable")));
}
