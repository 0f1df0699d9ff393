//! Tests of which versions of a plugin are which.

use super::is_version;

#[test]
fn the_first_version_has_several_names() {
    let check = |wanted: &str, has: Option<&str>, expected: bool| {
        assert_eq!(is_version(wanted, has), expected, "{wanted:?} of {has:?}");
    };
    for first in ["", "v0", "v1", "V1"] {
        check(first, Some("v1"), true);
        check(first, Some("v2"), true);
        check(first, None, true);
    }
    check("v2", Some("v1"), false);
    check("v2", Some("V2"), true);
    check("v2", None, true);
    check("1", Some("v1"), false);
}
