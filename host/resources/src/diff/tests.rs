//! Which change of the text is which change of what runs.

use super::*;
use crate::load::tests::read;

/// One resource of each kind.
const BASE: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: bus
spec:
  type: pubsub.redis
  metadata:
  - name: redisHost
    value: here:1
scopes: [me]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec: {pubsubname: bus, topic: t, deadLetterTopic: d, metadata: {a: b}, routes: {default: /t}}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies: {retries: {r: {policy: constant, duration: 1s, maxRetries: 3}}}
  targets: {components: {bus: {inbound: {retry: r}}}}
---
apiVersion: whimbrel.dev/v1alpha1
kind: Handler
metadata: {name: h}
spec: {file: h.wasm, subscriptions: [{pubsubname: bus, topic: u}]}
";

/// Short words for what became of what.
fn told(diff: &Diff) -> String {
    let Diff { components, subscriptions, handlers, policies } = diff;
    format!("{components} | {subscriptions} | {handlers} | {}", if *policies { "policies" } else { "" })
}

fn snapshot(text: &str) -> Snapshot {
    read(text).expect("sound")
}

fn check(from: &str, to: &str, expected: &str) {
    assert!(BASE.contains(from), "{from:?}");
    assert_eq!(told(&diff(&snapshot(BASE), &snapshot(&BASE.replacen(from, to, 1)))), expected, "{from:?} -> {to:?}");
}

const NOTHING: &str = "+0 -0 ~0 | +0 -0 ~0 | +0 -0 ~0 | ";

#[test]
fn what_is_no_change() {
    check("kind: Component", "# a remark\n\nkind: Component", NOTHING);
    check("metadata: {name: s}", "metadata: {name: s, labels: {team: us}}", NOTHING);
    check("redisHost\n    value: here:1", "redisHost\n    value: \"here:1\"", NOTHING);
    let mut documents: Vec<&str> = BASE.split("---\n").collect();
    documents.reverse();
    let reversed = diff(&snapshot(BASE), &snapshot(&documents.join("---\n")));
    assert!(reversed.is_empty(), "{reversed:?}");
}

#[test]
fn components() {
    const CHANGED: &str = "+0 -0 ~1 | +0 -0 ~0 | +0 -0 ~0 | ";
    check("here:1", "there:1", CHANGED);
    check("scopes: [me]", "scopes: [me, you]", CHANGED);
    check("name: bus\n", "name: other\n", "+1 -1 ~0 | +0 -0 ~0 | +0 -0 ~0 | ");
    check("scopes: [me]", "scopes: [you]", "+0 -1 ~0 | +0 -0 ~0 | +0 -0 ~0 | ");
}

#[test]
fn subscriptions() {
    const CHANGED: &str = "+0 -0 ~0 | +0 -0 ~1 | +0 -0 ~0 | ";
    check("default: /t", "default: /u", CHANGED);
    check("a: b", "a: c", CHANGED);
    check("topic: t", "topic: v", "+0 -0 ~0 | +1 -1 ~0 | +0 -0 ~0 | ");
    check("routes: {default: /t}}", "routes: {default: /t}}\nscopes: [you]", "+0 -0 ~0 | +0 -1 ~0 | +0 -0 ~0 | ");
}

#[test]
fn policies_and_handlers() {
    check("maxRetries: 3", "maxRetries: 4", "+0 -0 ~0 | +0 -0 ~0 | +0 -0 ~0 | policies");
    check("{name: r}", "{name: q}", "+0 -0 ~0 | +0 -0 ~0 | +0 -0 ~0 | policies");
    check("h.wasm", "g.wasm", "+0 -0 ~0 | +0 -0 ~0 | +0 -0 ~1 | ");
    check("topic: u", "topic: w", "+0 -0 ~0 | +0 -0 ~0 | +0 -0 ~1 | ");
    check("{name: h}", "{name: i}", "+0 -0 ~0 | +0 -0 ~0 | +1 -1 ~0 | ");
}

fn check_component(from: &str, to: &str, expected: Option<ComponentChange>) {
    assert!(BASE.contains(from), "{from:?}");
    let (old, new) = (snapshot(BASE), snapshot(&BASE.replacen(from, to, 1)));
    assert_eq!(component_change(&old.components[0], &new.components[0]), expected, "{from:?} -> {to:?}");
}

#[test]
fn how_much_of_a_component() {
    use ComponentChange::{Connection, Rules};
    const FIRST_ITEM: &str = "  - name: redisHost";
    let and = |item: &str| format!("  - name: {item}\n{FIRST_ITEM}");
    check_component("here:1", "there:1", Some(Connection));
    check_component("pubsub.redis", "pubsub.kafka", Some(Connection));
    check_component("spec:\n  type", "spec:\n  initTimeout: 9s\n  type", Some(Connection));
    check_component(FIRST_ITEM, &and("consumerID\n    value: them"), Some(Connection));
    check_component(FIRST_ITEM, &and("prefix\n    value: \"{namespace}\""), Some(Connection));
    check_component("  name: bus", "  name: bus\n  annotations: {whimbrel.dev/plugin: a.wasm}", Some(Connection));
    check_component("  name: bus", "  name: bus\n  annotations: {whimbrel.dev/network: \"a:1\"}", Some(Connection));
    check_component(FIRST_ITEM, &and("allowedTopics\n    value: t"), Some(Rules));
    check_component(FIRST_ITEM, &and("publishingScopes\n    value: me=t"), Some(Rules));
    check_component("[me]", "[me, you]", Some(Rules));
    check_component("spec:\n  type", "spec:\n  ignoreErrors: true\n  type", Some(Rules));
    check_component("kind: Component", "\nkind: Component", None);
}

fn check_subscription(from: &str, to: &str, expected: Option<SubscriptionChange>) {
    assert!(BASE.contains(from), "{from:?}");
    let (old, new) = (snapshot(BASE), snapshot(&BASE.replacen(from, to, 1)));
    assert_eq!(subscription_change(&old.subscriptions[0], &new.subscriptions[0]), expected, "{from:?} -> {to:?}");
}

#[test]
fn how_much_of_a_subscription() {
    use SubscriptionChange::{Feed, Rules};
    check_subscription("a: b", "a: c", Some(Feed));
    check_subscription("default: /t", "default: /u", Some(Rules));
    check_subscription("default: /t", "rules: [{match: \"event.type == 'a'\", path: /a}]", Some(Rules));
    check_subscription("deadLetterTopic: d", "deadLetterTopic: e", Some(Rules));
    check_subscription("{name: s}", "{name: s, labels: {a: b}}", None);
}

#[test]
fn how_much_of_a_handler() {
    let pool = |from: &str, to: &str| {
        let (old, new) = (snapshot(BASE), snapshot(&BASE.replacen(from, to, 1)));
        same_pool(&old.handlers[0], &new.handlers[0])
    };
    assert!(pool("topic: u", "topic: w"));
    assert!(!pool("file: h.wasm", "file: g.wasm"));
    assert!(!pool("file: h.wasm", "limits: {instances: 2}, file: h.wasm"));
    assert!(!pool("file: h.wasm", "appID: other, file: h.wasm"));
}

#[test]
fn a_secret_that_changes_is_a_change_of_its_component() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secrets.json");
    let store = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: vault}}\nspec: {{type: \
         secretstores.local.file, metadata: [{{name: secretsFile, value: {}}}]}}\n---\n",
        file.display()
    );
    let secret = BASE.replacen("value: here:1", "secretKeyRef: {name: host}\nauth: {secretStore: vault}", 1);
    let with = |value: &str| {
        std::fs::write(&file, format!("{{\"host\": \"{value}\"}}")).expect("written");
        snapshot(&(store.clone() + &secret))
    };
    let (old, new) = (with("here:1"), with("there:1"));
    assert_eq!(told(&diff(&old, &new)), "+0 -0 ~1 | +0 -0 ~0 | +0 -0 ~0 | ");
    assert_eq!(new.files, [file]);
}

#[test]
fn listed_in_the_order_of_dapr() {
    let check = |listed: &[u8], wanted: &[u8], changed: &[u8], expected: &[u8]| {
        assert_eq!(order(listed, wanted, |key| changed.contains(key)), expected, "{listed:?} {wanted:?} {changed:?}");
    };
    check(&[], &[1, 2], &[], &[1, 2]);
    check(&[1, 2], &[1, 2], &[1], &[2, 1]);
    check(&[1, 2], &[0, 1, 2], &[], &[1, 2, 0]);
    check(&[2, 1], &[1, 2], &[], &[2, 1]);
    check(&[1, 2, 3], &[0, 1, 3], &[1], &[3, 1, 0]);
}
