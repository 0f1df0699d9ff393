//! Cleaning and unescaping, case by case.

use super::{clean, clean_target, is_well_escaped, unescape};

fn check_clean(path: &str, expect: &str) {
    assert_eq!(clean(path), expect, "{path}");
    assert_eq!(clean(expect), expect, "cleaning twice changes {expect}");
}

#[test]
fn paths_are_cleaned() {
    check_clean("/a/b", "/a/b");
    check_clean("/", "/");
    check_clean("", "/");
    check_clean("a", "/a");
    check_clean("//", "/");
    check_clean("/a//b", "/a/b");
    check_clean("/a///b", "/a/b");
    check_clean("/a/b/", "/a/b");
    check_clean("/a/./b", "/a/b");
    check_clean("/a/../b", "/b");
    check_clean("/..", "/");
    check_clean("/../../a", "/a");
    check_clean("/a/b/..", "/a");
    check_clean("/a/.", "/a");
    check_clean("/.a/..b/c..", "/.a/..b/c..");
    check_clean("/a/%2F/b", "/a/%2F/b");
    check_clean("/a/%2E%2E/b", "/a/%2E%2E/b");
}

fn check_target(route: &str, expect: &str) {
    assert_eq!(clean_target(route), expect, "{route}");
}

#[test]
fn routes_of_apps_become_targets() {
    check_target("", "/");
    check_target("in", "/in");
    check_target("/in", "/in");
    check_target("/in/", "/in");
    check_target("//a/./b/../c", "/a/c");
    check_target("/in?a=1&b=//x/", "/in?a=1&b=//x/");
    check_target("in/?q", "/in?q");
    check_target("/with space", "/with%20space");
    check_target("/café", "/caf%C3%A9");
    check_target("/a#b", "/a%23b");
    check_target("/a%20b", "/a%20b");
    check_target("/line\nbreak", "/line%0Abreak");
}

fn check_escapes(text: &str, expect: bool) {
    assert_eq!(is_well_escaped(text), expect, "{text}");
}

#[test]
fn malformed_escapes_are_found() {
    check_escapes("", true);
    check_escapes("/a%2Fb%c3", true);
    check_escapes("%", false);
    check_escapes("%2", false);
    check_escapes("%zz", false);
    check_escapes("%2F%", false);
    check_escapes("%%20", false);
}

fn check_unescape(text: &str, expect: Option<&str>) {
    assert_eq!(unescape(text).as_deref(), expect, "{text}");
}

#[test]
fn names_are_unescaped() {
    check_unescape("plain", Some("plain"));
    check_unescape("a+b", Some("a b"));
    check_unescape("a%2Bb", Some("a+b"));
    check_unescape("a%2Fb", Some("a/b"));
    check_unescape("a%252Fb", Some("a%2Fb"));
    check_unescape("caf%C3%A9", Some("café"));
    check_unescape("café+x", Some("café x"));
    check_unescape("%20", Some(" "));
    check_unescape("%FF", None);
}
