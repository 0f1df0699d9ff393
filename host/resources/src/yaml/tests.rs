//! Cutting files into documents, and documents into nodes; and that nothing an operator writes makes it panic.

use super::{MAX_DEPTH, Node, Value, documents, parse};

fn json(text: &str) -> String {
    let nodes = parse(text, 1).expect("YAML");
    nodes.iter().map(Node::json).collect::<Vec<_>>().join(" ")
}

fn fails(text: &str) -> String {
    let malformed = parse(text, 1).expect_err("malformed");
    format!("{}: {}", malformed.line, malformed.what)
}

#[test]
fn files_are_cut_at_markers() {
    fn check(text: &str, expect: &[(usize, &str)]) {
        assert_eq!(documents(text), expect, "{text:?}");
    }
    check("", &[]);
    check("a: 1", &[(1, "a: 1")]);
    check("---\na: 1\n---\nb: 2\n", &[(2, "a: 1\n"), (4, "b: 2\n")]);
    check("a: 1\n---\n---\nb: 2", &[(1, "a: 1\n"), (4, "b: 2")]);
    check("a: 1\r\n---\r\nb: 2", &[(1, "a: 1\r\n"), (3, "b: 2")]);
    check("--- # why\na: 1", &[(1, "--- # why\na: 1")]);
    check("--- {a: 1}\n", &[(1, "--- {a: 1}\n")]);
    check("a: 1\n-----\nb: 2", &[(1, "a: 1\n"), (3, "b: 2")]);
    check("%YAML 1.2\n---\na: 1\n...\n", &[(3, "a: 1\n...\n")]);
    check("# nothing\n---\n\n--- \n# more", &[]);
    check("text: |\n  ---\n  b", &[(1, "text: |\n  ---\n  b")]);
}

#[test]
fn nodes() {
    fn check(text: &str, expect: &str) {
        assert_eq!(json(text), expect, "{text:?}");
    }
    check("a: 1\nb: [x, true, null, 1.50, 0x1F, yes]", r#"{"a":1,"b":["x",true,null,1.50,"0x1F","yes"]}"#);
    check("a: '1'\nb: \"true\"\nc: !!str 12", r#"{"a":"1","b":"true","c":"12"}"#);
    check("a: 1\na: 2\nb: ~", r#"{"a":2,"b":null}"#);
    check("a: &x {k: v}\nb: *x", r#"{"a":{"k":"v"},"b":{"k":"v"}}"#);
    check("a: &x {k: v, l: w}\nb:\n  <<: *x\n  k: own", r#"{"a":{"k":"v","l":"w"},"b":{"k":"own","l":"w"}}"#);
    check("b: {<<: [{k: 1, l: 1}, {k: 2, m: 2}]}", r#"{"b":{"k":1,"l":1,"m":2}}"#);
    check("a: |\n  one\n  two\nb: >-\n  one\n  two\n", r#"{"a":"one\ntwo\n","b":"one two"}"#);
    check("a: []\nb: {}\nc: ''", r#"{"a":[],"b":{},"c":""}"#);
    check("1: one\ntrue: two", r#"{"1":"one","true":"two"}"#);
    check("a: \"q\\\"\\u00e9\"", "{\"a\":\"q\\\"\u{e9}\"}");
    check("a: 1\n...\nb: 2", r#"{"a":1} {"b":2}"#);
    check("--- {a: 1}", r#"{"a":1}"#);
}

#[test]
fn lines_are_those_of_keys() {
    let nodes = parse("a:\n  - b:\n      c: |\n        text\n  - d:\n", 10).expect("YAML");
    let Value::Map(root) = &nodes[0].value else { panic!("no map") };
    assert_eq!(root[0].1.line, 10);
    let Value::List(items) = &root[0].1.value else { panic!("no list") };
    assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [11, 14]);
    let Value::Map(first) = &items[0].value else { panic!("no map") };
    let Value::Map(inner) = &first[0].1.value else { panic!("no map") };
    assert_eq!((first[0].1.line, inner[0].1.line), (11, 12));
    let Value::Map(second) = &items[1].value else { panic!("no map") };
    assert_eq!(second[0].1, Node { line: 14, value: Value::Null });
}

#[test]
fn malformed() {
    assert!(fails("a: [1\n").starts_with("2: "), "{}", fails("a: [1\n"));
    assert!(fails("a: 1\nb: c: d").starts_with("2: "), "{}", fails("a: 1\nb: c: d"));
    assert!(fails("a: *nobody").starts_with("1: "));
    assert!(fails("{[a]: 1}").contains("as a key"));
    assert!(fails("a: &x [*x]").contains("alias"));
    assert!(fails("a: \u{0}").starts_with("1: "));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(json(&nested(MAX_DEPTH)), nested(MAX_DEPTH));
    assert!(fails(&nested(MAX_DEPTH + 1)).contains("deep"));
    assert!(fails(&"- ".repeat(100_000)).contains("deep"));
    let through_alias = format!("- &a {}\n- [[*a]]", nested(MAX_DEPTH - 2));
    assert!(fails(&through_alias).contains("deep"));
    let just_fits = format!("- &a {}\n- [*a]", nested(MAX_DEPTH - 2));
    assert!(json(&just_fits).len() > 2 * MAX_DEPTH);
}

#[test]
fn aliases_do_not_explode() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", "));
    }
    assert!(fails(&laughs).contains("too large"));
}

#[test]
fn nothing_panics() {
    const CASES: usize = 4_000;
    const MAX_LENGTH: usize = 120;
    let alphabet: Vec<char> =
        "abc: -[]{}&*!|>%@`'\"#,?~\n\n  \t\r.0<=\\\u{e9}\u{feff}\u{2028}\u{0}\u{85}".chars().collect();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..CASES * crate::test_scale() {
        let length = random.usize(..MAX_LENGTH);
        let text: String = (0..length).filter_map(|_| random.choice(&alphabet)).collect();
        for (line, part) in documents(&text) {
            for node in parse(part, line).unwrap_or_default() {
                let written = node.json();
                assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok(), "{text:?} gave {written}");
            }
        }
    }
}
