//! Tests of `scope`: the rules and the table of pubsub-behaviour, section 8.2.

use super::*;

fn topics(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

/// `app=a,b;other=c`, as in the grammar; both operations get the same lists.
fn scopes(allowed: &str, protected: &str, granted: &str) -> TopicScopes {
    let apps = granted.split(';').filter_map(|app| app.split_once('='));
    let apps: HashMap<_, _> =
        apps.map(|(app, granted)| (app.to_owned(), granted.split(',').map(str::to_owned).collect())).collect();
    TopicScopes { allowed: topics(allowed), protected: topics(protected), publishing: apps.clone(), subscription: apps }
}

fn check(scopes: &TopicScopes, app: &str, topic: &str, expect: bool) {
    assert_eq!(allow_publish(scopes, app, topic), expect, "publish {app} {topic} {scopes:?}");
    assert_eq!(allow_subscribe(scopes, app, topic), expect, "subscribe {app} {topic} {scopes:?}");
}

#[test]
fn without_scopes_all_is_allowed() {
    check(&TopicScopes::default(), "app", "t", true);
}

#[test]
fn a_list_restricts_the_apps_it_names() {
    let listed = scopes("", "", "app1=t1;app2=t2,t3;app3=");
    check(&listed, "app1", "t1", true);
    check(&listed, "app1", "t2", false);
    check(&listed, "app1", "T1", false);
    check(&listed, "app2", "t3", true);
    check(&listed, "app3", "t1", false);
    check(&listed, "unlisted", "t1", true);
    check(&listed, "App1", "t2", true);
}

#[test]
fn allowed_topics_bound_everything() {
    let bounded = scopes("t1,t2", "", "app1=t1,t9");
    check(&bounded, "app1", "t1", true);
    check(&bounded, "app1", "t2", false);
    check(&bounded, "app1", "t9", false);
    check(&bounded, "unlisted", "t2", true);
    check(&bounded, "unlisted", "t3", false);
}

#[test]
fn protected_topics_need_a_grant() {
    let protected = scopes("", "t1,t2", "app1=t1");
    check(&protected, "app1", "t1", true);
    check(&protected, "app1", "t2", false);
    check(&protected, "app1", "other", false);
    check(&protected, "unlisted", "t1", false);
    check(&protected, "unlisted", "other", true);
}

#[test]
fn publishing_and_subscribing_have_their_own_lists() {
    let mut scopes = scopes("", "", "app=t");
    scopes.subscription.clear();
    assert!(!allow_publish(&scopes, "app", "u"));
    assert!(allow_subscribe(&scopes, "app", "u"));
}

fn check_delivery(scopes: &TopicScopes, subscribed: &str, actual: &str, wildcards: bool, expect: bool) {
    assert_eq!(
        allow_delivery(scopes, "app", subscribed, actual, wildcards),
        expect,
        "{subscribed} {actual} {scopes:?}"
    );
}

#[test]
fn the_actual_topic_of_a_delivery_is_checked() {
    let open = scopes("", "", "");
    check_delivery(&open, "t", "t", false, true);
    check_delivery(&open, "t*", "t1", true, true);
    let protected = scopes("", "t-secret", "");
    check_delivery(&protected, "t*", "t-1", true, true);
    check_delivery(&protected, "t*", "t-secret", true, false);
    let granted = scopes("", "t-secret", "app=t*");
    check_delivery(&granted, "t*", "t-1", true, true);
    check_delivery(&granted, "t*", "t-secret", true, false);
    check_delivery(&scopes("", "t-secret", "app=t*,t-secret"), "t*", "t-secret", true, true);
    let plain = scopes("", "", "app=t");
    check_delivery(&plain, "t", "t", true, true);
    check_delivery(&plain, "t", "u", true, false);
    check_delivery(&granted, "t*", "t-1", false, false);
    check_delivery(&scopes("t*,u", "", ""), "t*", "t1", true, true);
    check_delivery(&scopes("u", "", ""), "t*", "t1", true, false);
}
