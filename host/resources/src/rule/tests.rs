//! Tests of `rule`: what the real sidecar answered (golden), and what nobody may do to us with an expression.

use super::*;

/// What the sidecar was asked about, with its attributes by name.
const GOLDEN: &str = r#"{"n":1,"l":[1,2],"a":{"b":{"c":1}}}"#;

fn event(data: &str) -> Vec<(&str, Fact<'_>)> {
    vec![
        ("type", Fact::Json(r#""com.dapr.event.sent""#)),
        ("time", Fact::Json(r#""2026-01-02T03:04:05Z""#)),
        ("level", Fact::Json("5")),
        ("ext", Fact::Text("e".into())),
        ("data", Fact::Json(data)),
    ]
}

#[track_caller]
fn ask(expression: &str, data: &str) -> Result<bool, String> {
    Rule::new(expression, "/hit").expect("a rule").accepts(&Facts::new(event(data)).expect("facts"))
}

#[track_caller]
fn check(expression: &str, data: &str, expected: Option<bool>) {
    assert_eq!(ask(expression, data).ok(), expected, "{expression} over {data}: {:?}", ask(expression, data));
}

#[test]
fn the_answers_are_those_of_the_sidecar() {
    for (expression, expected) in [
        (r#"event.type == "gold""#, Some(false)),
        ("event.missing == 1", None),
        ("event.data.n / 0 == 1", None),
        ("event.data.n", None),
        (r#""str""#, None),
        ("true", Some(true)),
        ("", Some(true)),
        (" \n", Some(true)),
        ("event.type.matches('^g')", Some(false)),
        ("event.type.matches('^com')", Some(true)),
        ("size(event.data.l) == 2", Some(true)),
        ("event.data.n in [1,2]", Some(true)),
        ("event.data.a.b.c == 1", Some(true)),
        ("type(event.data.n) == int", Some(false)),
        ("type(event.data.n) == double", Some(true)),
        ("event.data.n == 1", Some(true)),
        ("event.data.n == 1.0", Some(true)),
        ("1 == 1 ? true : false", Some(true)),
        ("event.data.l.exists(x, x > 1)", Some(true)),
        ("timestamp(event.time) > timestamp('2000-01-01T00:00:00Z')", Some(true)),
        ("event.data.x == 1", None),
        ("has(event.data.x) && event.data.x", Some(false)),
        ("event.ext == 'e' && event.level == 5", Some(true)),
        ("event[\"type\"].startsWith('com')", Some(true)),
        ("'n' in event.data", Some(true)),
        ("nobody == 1", None),
    ] {
        check(expression, GOLDEN, expected);
    }
}

#[test]
fn numbers_are_doubles_and_types_must_fit() {
    check("event.data.n > 5", r#"{"n":9}"#, Some(true));
    check("event.data.n > 5", r#"{"n":5.5}"#, Some(true));
    check("event.data.n > 5", r#"{"n":"9"}"#, None);
    check("event.data.n > 5", "[]", None);
    check("event.data.n > 5", "5", None);
    check("event.data.n > 5", "null", None);
    check("event.data == 'text'", r#""text""#, Some(true));
    check("event.data.big == 9007199254740992.0", r#"{"big":9007199254740993}"#, Some(true));
    check("'a' in event.data.list", r#"{"list":["a","b"]}"#, Some(true));
    check("event.data.opt || true", r#"{"opt":"x"}"#, Some(true));
    check("event.data.n == 2", r#"{"n":1,"n":2}"#, Some(true));
}

#[test]
fn what_does_not_compile_says_why() {
    for (expression, said) in [
        ("event.data.n > ", "no CEL expression"),
        ("nope(1)", "no function nope"),
        ("event.type.nope()", "no function nope"),
        ("event.type == 'a", "no CEL expression"),
        ("Thing{a: 1}", "no type Thing"),
        ("[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))", "more than 3 loops"),
    ] {
        let what = Rule::new(expression, "/").expect_err(expression);
        assert!(what.contains(said), "{expression}: {what}");
    }
}

#[test]
fn an_expression_has_bounds_of_size_and_depth() {
    let sum = |terms: usize| vec!["1"; terms].join("+") + " > 0";
    check(&sum(40), "1", Some(true));
    for expression in [
        sum(1000),
        format!("{}true{}", "(".repeat(1500), ")".repeat(1500)),
        format!("{}1{}", "[".repeat(2000), "]".repeat(2000)),
        format!("event{}", ".a".repeat(2000)),
        format!("event{}", "[0]".repeat(1300)),
        format!("{}1", "true ? 1 : ".repeat(300)),
        "x".repeat(EXPRESSION_BYTES_MAX + 1),
    ] {
        assert!(Rule::new(&expression, "/").is_err(), "{} bytes", expression.len());
    }
    // Many alternatives are usual, and no depth.
    let many = (0..100).map(|n| format!("event.level == {n}")).collect::<Vec<_>>().join(" || ");
    check(&many, "1", Some(true));
}

#[test]
fn loops_over_a_large_event_are_refused_and_not_run() {
    let list = |items: usize| format!(r#"{{"l":[{}]}}"#, vec!["1"; items].join(","));
    check("event.data.l.all(x, x == 1)", &list(10_000), Some(true));
    check("event.data.l.all(x, event.data.l.all(y, x == y))", &list(100), Some(true));
    check("event.data.l.all(x, event.data.l.all(y, x == y))", &list(10_000), None);
    check("event.data.l.all(x, x in event.data.l)", &list(100_000), None);
}

#[test]
fn hostile_values_are_errors_and_no_panics() {
    for expression in [
        "int(1e300) == 1",
        "9223372036854775807 + 1 == 0",
        "-9223372036854775808 / -1 == 0",
        "-9223372036854775808 % -1 == 0",
        "-(-9223372036854775808) == 0",
        "uint(-1) == 0u",
        "0u - 1u == 0u",
        "duration('9223372036854775807s') > duration('1s')",
        "timestamp('9999-12-31T23:59:59Z') + duration('10000000h') > timestamp(0)",
        "timestamp(9223372036854775807) > timestamp(0)",
        "timestamp(0) - duration('2562047h') - duration('2562047h') > timestamp(0)",
        "event.type.matches('(')",
        "event.type.matches('(a{1000}){1000}')",
        "[1][-1] == 1",
        "[1][9223372036854775807] == 1",
        "[1][1.5] == 1",
        "timestamp(0).getHours('no/where') == 1",
        "timestamp(0).getHours('+99:99') == 1",
        "b'\\xff' == b'a' && string(b'\\xff') == ''",
    ] {
        if let Ok(rule) = Rule::new(expression, "/") {
            let facts = Facts::new(event("1")).expect("facts");
            assert!(!rule.accepts(&facts).unwrap_or_default() || expression.starts_with("duration"), "{expression}");
        }
    }
}

#[test]
fn a_value_that_is_no_json_or_too_deep_is_an_error() {
    for json in ["", "{", "1e400", &"[".repeat(1000), &format!("{}1{}", "[".repeat(200), "]".repeat(200))] {
        assert!(Facts::new([("data", Fact::Json(json))]).is_err(), "{json}");
    }
}

#[test]
fn it_looks_only_at_what_it_names() {
    for (expression, looks, not) in [
        ("event.type == 'a'", "type", "data"),
        ("has(event.data.x)", "data", "type"),
        ("event['data'] == 1", "anything", ""),
        ("event.data.all(event, event.x > 1)", "data", "source"),
        ("size(event) > 0", "anything", ""),
        (".event.type == ''", "type", "data"),
    ] {
        let rule = Rule::new(expression, "/").expect("a rule");
        assert!(rule.looks_at(looks), "{expression}");
        assert!(not.is_empty() || !rule.looks_at(not), "{expression}");
    }
}

#[test]
fn an_error_shows_no_value_of_the_event() {
    for expression in
        ["event.data + 1 == 2", "event.data", "event.type > 1", "event[event.data] == 1", "int(event.data) == 1"]
    {
        let what = ask(expression, r#""s3cret""#).expect_err(expression);
        assert!(!what.contains("s3cret"), "{what}");
    }
}

#[test]
fn random_expressions_neither_panic_nor_hang() {
    const PIECES: [&str; 34] = [
        "event",
        ".",
        "data",
        "type",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "==",
        "&&",
        "||",
        "!",
        "1",
        "1.5",
        "'a'",
        "\"",
        "in",
        "has",
        "size",
        "+",
        "-",
        "*",
        "/",
        "%",
        "?",
        ":",
        ",",
        " ",
        "true",
        ".all(x, ",
        "timestamp(",
        "é",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let mut compiled = 0;
    for _ in 0..2_000 * crate::test_scale() {
        let pieces = random.usize(1..14);
        let text: String = (0..pieces).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
        if let Ok(rule) = Rule::new(&text, "/") {
            compiled += 1;
            drop(rule.accepts(&Facts::new(event(GOLDEN)).expect("facts")));
        }
    }
    assert!(compiled > 0);
}
