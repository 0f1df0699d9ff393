//! Targets for fuzzers: each takes any bytes, and panics only where a promise is broken. `tests/fuzz` drives them with seeds; a
//! coverage-guided fuzzer calls them as they are: `fuzz_target!(|bytes: &[u8]| whimbrel_resources::fuzz::rule(bytes))`.

use std::borrow::Cow;
use std::path::Path;

use crate::folder;
use crate::load;
use crate::problem::Problem;
use crate::rule::{Fact, Facts, Rule};
use crate::scopes::{SCOPING_ITEMS, TopicScopes};
use crate::surroundings::Surroundings;

/// A file of resources: it is read or refused, every problem is on a line of the file and says something, and the same
/// text has the same problems.
pub fn resources(bytes: &[u8]) {
    let read = || -> Vec<Problem> {
        let mut problems = Vec::new();
        let documents = folder::parse(Path::new("f.yaml"), bytes, &mut problems);
        load::snapshot(&documents, &["me"], &Surroundings::default(), problems).1.0
    };
    // One more than the breaks, and the end of the file counts as a line of its own.
    let lines = 2 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let (first, second) = (read(), read());
    assert_eq!(first.len(), second.len(), "the same text has the same problems");
    for problem in first {
        assert!((1..=lines).contains(&problem.at.line), "a file of {lines} lines: {problem}");
        assert!(!problem.what.is_empty(), "{problem:?}");
    }
}

/// A scoping item: the first byte says which. What was read is what its own spelling says.
pub fn scopes(bytes: &[u8]) {
    let Some((first, value)) = bytes.split_first() else { return };
    let name = SCOPING_ITEMS[usize::from(*first) % SCOPING_ITEMS.len()];
    let mut read = TopicScopes::default();
    assert!(read.take(name, &String::from_utf8_lossy(value)), "{name} is a scoping item");
    let apps = |apps: &std::collections::HashMap<String, Vec<String>>| {
        let spelled = apps.iter().map(|(app, topics)| format!("{app}={}", topics.join(",")));
        spelled.collect::<Vec<_>>().join(";")
    };
    let spelled = [read.allowed.join(","), read.protected.join(","), apps(&read.publishing), apps(&read.subscription)];
    let mut again = TopicScopes::default();
    for (name, value) in SCOPING_ITEMS.iter().zip(&spelled) {
        assert!(again.take(name, value), "{name} is a scoping item");
    }
    assert_eq!(again, read, "{spelled:?}");
}

/// A content rule, then a zero byte, then the data of an event: it compiles or does not, and says the same each time.
pub fn rule(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0).map(String::from_utf8_lossy);
    let expression = parts.next().unwrap_or_default();
    let data = parts.next().unwrap_or(Cow::Borrowed("null"));
    let Ok(rule) = Rule::new(&expression, "/in") else { return };
    let facts = [
        ("id", Fact::Text("1".into())),
        ("type", Fact::Text("order.placed".into())),
        ("time", Fact::Text("2024-02-29T12:00:00Z".into())),
        ("data", Fact::Json(&data)),
    ];
    assert!(["id", "type", "data"].iter().any(|name| rule.looks_at(name)) || !rule.looks_at("no such attribute"));
    let Ok(facts) = Facts::new(facts) else { return };
    let (first, second) = (rule.accepts(&facts), rule.accepts(&facts));
    assert_eq!(first.is_ok(), second.is_ok(), "{rule:?}");
    assert_eq!(first.unwrap_or_default(), second.unwrap_or_default(), "{rule:?}");
    let again = Rule::new(rule.expression(), rule.path());
    assert_eq!(again, Ok(rule), "a rule's own text is that rule");
}
