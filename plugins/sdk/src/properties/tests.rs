use super::*;
use crate::Property;

fn config(name: &str, value: &str) -> Config {
    let property = Property { name: name.into(), value: value.into() };
    Config { name: "bus".into(), properties: vec![property], instance: "i".into() }
}

#[test]
fn durations() {
    let check = |text: &str, expected: Option<u64>| {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
    };
    check("15s", Some(15_000));
    check("1m30s", Some(90_000));
    check("1.5s", Some(1_500));
    check("500", Some(500));
    check("0", Some(0));
    check("2h", Some(7_200_000));
    check("", None);
    check("s", None);
    check("5", Some(5));
    check("5 s", None);
    check("-1s", None);
    check("1x", None);
    check("1e400s", None);
}

#[test]
fn errors_name_the_key_and_not_the_value() {
    let config = config("QueueDepth", "hunter2");
    let error = Properties::of(&config).number::<u32>("queueDepth", 1).unwrap_err();
    let Failure::Invalid(text) = error else { panic!("{error:?}") };
    assert!(text.contains("queueDepth") && !text.contains("hunter2"), "{text}");
}

#[test]
fn names_are_compared_without_case_and_blanks_take_the_default() {
    let config = config("ENABLEtls", " ");
    assert_eq!(Properties::of(&config).switch("enableTLS", true), Ok(true));
    assert_eq!(Properties::of(&config).text("enabletls"), Some(" "));
}
