//! Tests of `configuration` that are not pairs of files.

use super::*;

#[test]
fn variables() {
    let variables = [("A", "1"), ("LONG_NAME", "two")];
    let surroundings: Surroundings =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let check = |text: &str, expect: &str| assert_eq!(expand(text, &surroundings), expect, "{text}");
    check("", "");
    check("plain", "plain");
    check("$A", "1");
    check("${A}b$LONG_NAME.", "1btwo.");
    check("x${NOT_SET}y$NOT_SET", "xy");
    check("^/orders/.+$", "^/orders/.+$");
    check("$ $$A ${A", "$ $1 ${A");
    check("größe$A", "größe1");
}

fn rule(name: &str, version: Option<&str>, protocol: Option<Protocol>) -> ApiRule {
    ApiRule { name: name.into(), version: version.map(str::to_owned), protocol }
}

#[test]
fn what_is_denied_wins_and_what_is_not_listed_is_not_allowed() {
    let check = |allowed: &[ApiRule], denied: &[ApiRule], name: &str, version: &str, expect: bool| {
        let access = ApiAccess { allowed: allowed.to_vec(), denied: denied.to_vec() };
        assert_eq!(access.allows(Protocol::Http, name, version), expect, "{name} {version}: {access:?}");
    };
    let http = Some(Protocol::Http);
    check(&[], &[], "publish", "v1", true);
    check(&[], &[rule("publish", Some("v1"), http)], "publish", "v1", false);
    check(&[], &[rule("publish", Some("v1"), http)], "publish", "v1alpha1", true);
    check(&[], &[rule("publish", None, None)], "publish", "v1alpha1", false);
    check(&[], &[rule("publish", None, Some(Protocol::Grpc))], "publish", "v1", true);
    check(&[rule("publish", Some("v1"), http)], &[], "publish", "v1", true);
    check(&[rule("publish", Some("v1"), http)], &[], "metadata", "v1", false);
    check(&[rule("publish", Some("v1"), Some(Protocol::Grpc))], &[], "metadata", "v1", true);
    check(&[rule("publish", None, None)], &[rule("publish", None, None)], "publish", "v1", false);
}
