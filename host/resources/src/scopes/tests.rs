//! The topic scoping grammar, by the table of pubsub-behaviour, section 8.2.

use super::TopicScopes;

fn publishing(value: &str) -> String {
    let mut scopes = TopicScopes::default();
    assert!(scopes.take("PUBLISHINGscopes", value));
    let mut apps: Vec<String> =
        scopes.publishing.iter().map(|(app, topics)| format!("{app}={}", topics.join("|"))).collect();
    apps.sort();
    apps.join(" ")
}

#[test]
fn apps() {
    fn check(value: &str, expect: &str) {
        assert_eq!(publishing(value), expect, "{value:?}");
    }
    check("app1=t1;app2=t2,t3;app3=", "app1=t1 app2=t2|t3 app3=");
    check("me = a ; ; you", "me=a");
    check("me=a, s p", "me=a|sp");
    check("me=a;you=c;me=b", "me=a|b you=c");
    check("me=a=b;x", "me=a");
    check("", "");
    check("   ", "");
    check(";;=;", "=");
    check("me=,", "me=|");
}

#[test]
fn denied_everything_is_not_absent() {
    let mut scopes = TopicScopes::default();
    scopes.take("subscriptionScopes", "me=");
    assert_eq!(scopes.subscription.get("me"), Some(&vec![String::new()]));
}

#[test]
fn topic_lists() {
    let mut scopes = TopicScopes::default();
    assert!(scopes.take("AllowedTopics", "a, b ,s p,,c"));
    assert_eq!(scopes.allowed, ["a", "b", "sp", "", "c"]);
    assert!(scopes.take("protectedTopics", "x"));
    assert!(scopes.take("protectedTopics", ""));
    assert_eq!(scopes.protected, Vec::<String>::new());
    assert!(!scopes.take("allowedTopic", "a"));
}

#[test]
fn nothing_panics() {
    let alphabet: Vec<char> = "ab=;, \u{e9}\u{0}".chars().collect();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..2_000 * crate::test_scale() {
        let length = random.usize(..30);
        let value: String = (0..length).filter_map(|_| random.choice(&alphabet)).collect();
        let named = publishing(&value);
        assert!(!named.contains(' ') || named.contains('='), "{value:?} gave {named:?}");
    }
}
