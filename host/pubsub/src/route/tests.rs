//! Tests of `route`.

use super::*;
use crate::fakes;

const EVENT: &str = r#"{"id":"1","type":"gold","data":{"n":9,"huge":1e400},"ext":5,"note":"a\nb"}"#;

fn routes(rules: &[(&str, &str)], default: Option<&str>) -> Routes {
    let mut declared = fakes::declared("t", None, &[]);
    declared.rules = rules.iter().map(|(expression, path)| Rule::new(expression, path).expect("a rule")).collect();
    declared.default_route = default.map(str::to_owned);
    Routes::new(&declared)
}

#[track_caller]
fn check(rules: &[(&str, &str)], default: Option<&str>, expected: Option<&str>) {
    let event = Event::structured(EVENT.into(), &vec![("TraceParent".into(), "00-1".into())]).expect("an event");
    assert_eq!(routes(rules, default).select(&event).expect("no failure").as_deref(), expected, "{rules:?}");
}

#[test]
fn without_rules_every_event_takes_the_default_route() {
    check(&[], Some("/in"), Some("/in"));
    check(&[], Some(""), Some(""));
    check(&[], None, None);
}

#[test]
fn the_first_rule_that_is_true_takes_it() {
    let (gold, other) = (("event.type == 'gold'", "/gold"), ("event.type == 'tin'", "/tin"));
    check(&[gold, ("true", "/late")], Some("/in"), Some("/gold"));
    check(&[other, gold], Some("/in"), Some("/gold"));
    check(&[other], Some("/in"), Some("/in"));
    check(&[other], None, None);
    check(&[("event.ext == 5 && event.note == 'a\\nb'", "/x")], None, Some("/x"));
    check(&[("event.traceparent == '00-1'", "/traced")], None, Some("/traced"));
}

#[test]
fn a_rule_without_expression_shadows_what_follows() {
    check(&[("", "/any"), ("event.missing == 1", "/x")], Some("/in"), Some("/any"));
    check(&[("event.type == 'tin'", "/tin"), (" ", "/any")], Some("/in"), Some("/any"));
}

#[test]
fn a_rule_that_fails_is_a_failure_and_no_miss() {
    let event = Event::structured(EVENT.into(), &Vec::new()).expect("an event");
    for rule in ["event.missing == 1", "event.type", "event.data.n == 9"] {
        assert!(routes(&[(rule, "/x"), ("true", "/y")], Some("/in")).select(&event).is_err(), "{rule}");
    }
    // The number that is out of range is in the data, which nobody looks at.
    assert!(routes(&[("event.type == 'gold'", "/x")], None).select(&event).is_ok());
}

#[test]
fn rules_see_a_binary_event_like_any_other() {
    let metadata = vec![("ce_type".into(), "gold".into()), ("ce_level".into(), "5".into())];
    let event = Event::binary("abc".into(), "application/octet-stream", &metadata);
    let select = |rule| routes(&[(rule, "/x")], None).select(&event).map(|path| path.is_some());
    assert_eq!(select("event.type == 'gold' && event.level == '5'"), Ok(true));
    assert_eq!(select("event.data_base64 == 'YWJj'"), Ok(true));
    assert!(select("event.data == 'abc'").is_err());
}
