//! Tests of `secrets`.

use std::fs;

use super::*;

const SECRETS: &str =
    r#"{"plain":"p","redis":{"password":"hunter2","tls":{"key":"k"},"ports":[1,2]},"on":true,"no":null}"#;

fn file(text: &str, separator: &str, multi_valued: bool) -> Result<Store, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.json");
    fs::write(&path, text).expect("written");
    Store::file(&path, separator, multi_valued)
}

#[track_caller]
fn check(store: &Store, name: &str, key: &str, expected: Option<&str>) {
    let variables = [("REGION", "north"), ("MY_REGION", "south"), ("DAPR_API_TOKEN", "t"), ("EMPTY", "")];
    let surroundings = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(store.get(name, key, &surroundings).as_deref(), expected, "{name}, {key}");
}

#[test]
fn a_file_has_one_value_for_each_path() {
    let store = file(SECRETS, ":", false).expect("a store");
    check(&store, "plain", "plain", Some("p"));
    check(&store, "redis:password", "redis:password", Some("hunter2"));
    check(&store, "redis:tls:key", "redis:tls:key", Some("k"));
    check(&store, "redis:ports:1", "redis:ports:1", Some("2"));
    check(&store, "on", "on", Some("true"));
    for (name, key) in [("redis", "password"), ("plain", "other"), ("no", "no"), ("", "")] {
        check(&store, name, key, None);
    }
    check(&file(SECRETS, ".", false).expect("a store"), "redis.password", "redis.password", Some("hunter2"));
}

#[test]
fn a_multi_valued_file_has_keys_for_each_secret() {
    let store = file(SECRETS, ":", true).expect("a store");
    check(&store, "redis", "password", Some("hunter2"));
    check(&store, "redis", "tls:key", Some("k"));
    check(&store, "plain", "plain", Some("p"));
    check(&store, "redis:password", "redis:password", None);
}

#[test]
fn a_file_that_cannot_be_read_says_so_and_shows_nothing() {
    for text in ["", "[]", "{\"a\": hunter2}"] {
        let what = file(text, ":", false).expect_err(text);
        assert!(what.contains("no JSON object") && !what.contains("hunter2"), "{what}");
    }
    assert!(Store::file(Path::new("nowhere/at-all.json"), ":", false).is_err());
}

#[test]
fn the_environment_keeps_back_what_is_the_hosts() {
    let all = Store::Environment { prefix: String::new() };
    check(&all, "REGION", "REGION", Some("north"));
    check(&Store::Environment { prefix: "MY_".to_owned() }, "REGION", "REGION", Some("south"));
    for (name, key) in [("REGION", "key"), ("DAPR_API_TOKEN", "DAPR_API_TOKEN"), ("EMPTY", "EMPTY"), ("NONE", "NONE")] {
        check(&all, name, key, None);
    }
    check(&Store::Environment { prefix: "DAPR_".to_owned() }, "API_TOKEN", "API_TOKEN", None);
}

#[test]
fn a_mounted_secret_is_a_folder_of_keys_and_nothing_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("redis")).expect("made");
    fs::write(folder.path().join("redis/password"), "hunter2\n").expect("written");
    fs::write(folder.path().join("outside"), "o").expect("written");
    let store = Store::Folder(folder.path().to_path_buf());
    check(&store, "redis", "password", Some("hunter2\n"));
    for (name, key) in [("redis", "../outside"), (".", "outside"), ("redis", ".."), ("redis", ""), ("gone", "x")] {
        check(&store, name, key, None);
    }
}
