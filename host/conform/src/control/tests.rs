//! A command does its work, or its error says what it printed.

use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn shell(script: &str) -> Vec<String> {
    words(&["sh", "-c", script])
}

async fn read(script: &str) -> Result<Vec<Stored>, String> {
    let profile = Conformance { read: shell(script), ..Conformance::default() };
    Control(&profile).read("orders").await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_the_broker_stores_is_read() {
    let printed = r#"printf '{"data":"AGE=","metadata":{"a":"b"}}\n\n{"data":""}\n'"#;
    let expected = vec![
        Stored { data: vec![0, b'a'], metadata: [("a".to_owned(), "b".to_owned())].into() },
        Stored { data: vec![], metadata: BTreeMap::new() },
    ];
    assert_eq!(read(printed).await, Ok(expected));
}

#[tokio::test]
async fn the_topic_stands_in_its_place() {
    let profile =
        Conformance { read: words(&["echo", r#"{"data":"","metadata":{"t":"{topic}"}}"#]), ..Conformance::default() };
    let stored = Control(&profile).read("orders").await.unwrap();
    assert_eq!(stored[0].metadata["t"], "orders");
}

#[tokio::test]
async fn the_group_stands_in_its_place() {
    let script = r#"[ "$0 $1" = "orders app" ]"#;
    let delete_group = words(&["sh", "-c", script, "{topic}", "{group}"]);
    let profile = Conformance { delete_group, ..Conformance::default() };
    Control(&profile).delete_group("orders", "app").await.unwrap();
}

async fn check(script: &str, expect: &str) {
    let error = read(script).await.unwrap_err();
    assert!(error.contains(expect), "{expect:?} is not in {error:?}");
}

#[tokio::test]
async fn what_goes_wrong_is_told() {
    check("echo it is broken >&2; exit 3", "ended with exit status: 3: it is broken").await;
    check("echo nonsense", "printed a line that is no message").await;
    check(r#"echo '{"data":"%"}'"#, "printed a line that is no message").await;
    let nobody = Conformance { stop: words(&["/no/such/program"]), ..Conformance::default() };
    let error = Control(&nobody).stop().await.unwrap_err().to_string();
    assert!(error.contains("`stop` ([\"/no/such/program\"]) does not run"), "{error}");
    let error = Control(&nobody).kill().await.unwrap_err().to_string();
    assert_eq!(error, "the profile names no command `kill`");
}

#[tokio::test]
async fn what_is_left_behind_is_not_waited_for() {
    let profile = Conformance { start: shell("sleep 5 & exit 0"), ..Conformance::default() };
    let begun = std::time::Instant::now();
    Control(&profile).start().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
}
