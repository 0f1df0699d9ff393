//! Finding keys, saying what is wrong, and guessing what was meant.

use std::path::Path;

use super::{Place, did_you_mean, quoted};
use crate::yaml;

#[test]
fn near_misses() {
    fn check(name: &str, expect: &str) {
        assert_eq!(did_you_mean(name, &["redisHost", "redisPassword", "route", "topic"]), expect, "{name:?}");
    }
    check("redisHots", "did you mean redisHost?");
    check("REDISHOST", "did you mean redisHost?");
    check("redis_password", "did you mean redisPassword?");
    check("rout", "did you mean route?");
    check("colour", "");
    check("", "");
    check(&"x".repeat(1_000_000), "");
}

#[test]
fn long_values_are_cut() {
    assert_eq!(quoted("a\nb"), r#""a\nb""#);
    assert_eq!(quoted(&"\u{e9}".repeat(100)), format!("\"{}\"...", "\u{e9}".repeat(60)));
}

#[test]
fn keys_and_shapes() {
    let nodes = yaml::parse("Spec:\n  A: 1\n  a: 2\n  list: [x, {y: 1}]\n  empty:\n  bad: maybe\n", 1).expect("YAML");
    let root = Place::root(Path::new("f.yaml"), &nodes[0]);
    let mut problems = Vec::new();
    let spec = root.section("spec", &mut problems).expect("a map");
    assert_eq!(spec.text("a", &mut problems), Some("2"));
    assert_eq!(spec.get("empty").map(|place| place.key), None);
    assert_eq!(spec.texts("list", &mut problems), ["x"]);
    assert!(!spec.flag("bad", &mut problems));
    assert_eq!(spec.required("gone", "", &mut problems), None);
    spec.warn_unknown(&["a", "list", "empty", "bed"], &mut problems);
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "f.yaml:4: spec.list[1]: expected a text, found a map",
        "f.yaml:6: spec.bad: \"maybe\" is not true or false",
        "f.yaml:1: spec.gone: is missing",
        "f.yaml:6: spec.bad: unknown key (did you mean bed?)",
    ];
    assert_eq!(said, expected);
}
