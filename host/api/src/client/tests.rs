use super::*;

fn check_target(pubsub: &str, topic: &str, metadata: &[(&str, &str)], expected: &str) {
    let metadata: Vec<_> = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(Place { pubsub, topic, metadata: &metadata }.target("/p"), expected);
}

#[test]
fn names_are_escaped_so_that_they_arrive() {
    check_target("bus", "orders", &[], "/p/bus/orders");
    check_target("bus", "a/b c", &[], "/p/bus/a%2Fb%20c");
    check_target("bus", "..", &[], "/p/bus/%2E%2E");
    check_target("bulk", "a+b%", &[("a.b", "x=&y")], "/p/bulk/a%2Bb%25?metadata.a%2Eb=x%3D%26y");
    check_target("bus", "ü", &[("a", "1"), ("b", "")], "/p/bus/%C3%BC?metadata.a=1&metadata.b=");
}

fn check_told(status: u16, body: &str, expected: &str) {
    assert_eq!(Answered { status, body: body.to_owned() }.told(), expected);
}

#[test]
fn answers_are_told_with_code_and_text() {
    check_told(403, r#"{"errorCode":"ERR_X","message":"no","details":[]}"#, "403 ERR_X: no");
    check_told(500, r#"{"errorCode":"ERR_X","failedEntries":[]}"#, "500 ERR_X");
    check_told(401, "invalid api token\n", "401 invalid api token");
    check_told(502, "", "502");
}

#[test]
fn failed_entries_are_found() {
    let body = r#"{"failedEntries":[{"entryId":"2","error":"no"}],"errorCode":"ERR_X"}"#.to_owned();
    assert_eq!(Answered { status: 500, body }.failed_entries(), [("2".to_owned(), "no".to_owned())]);
    assert!(Answered { status: 500, body: "odd".to_owned() }.failed_entries().is_empty());
}
