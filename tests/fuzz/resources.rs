//! The resource parser, the scope grammar and content rules.

use std::fs;
use std::path::Path;
use whimbrel_resources::fuzz::{resources, rule, scopes};

use super::drive;

#[test]
fn files_of_resources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/resources/tests");
    let mut files = Vec::new();
    for part in ["valid", "invalid"] {
        for entry in fs::read_dir(folder.join(part)).expect("the pairs") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(fs::read(path).expect("a file"));
            }
        }
    }
    assert!(files.len() > 10, "only {} files", files.len());
    let corpus: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let words =
        ["---\n", "&a ", "*a", "<<: ", "? ", "!!str ", "|\n", "\u{feff}", "\r", "\t", "- ", ": ", "{", "]", "\u{85}"];
    drive(11, 1_500, &corpus, &words, resources);
}

#[test]
fn scoping_items() {
    let corpus: [&[u8]; 6] =
        [b"\x02app1=t1;app2=t2,t3;app3=", b"\x03me = a ; ; you", b"\x00a, b ,,c", b"\x01", b"\x02=;=", b"\x03me=\xff"];
    drive(12, 20_000, &corpus, &["=", ";", ",", " ", "\u{a0}", "me", "\0"], scopes);
}

#[test]
fn content_rules() {
    let corpus: [&[u8]; 8] = [
        b"event.type == \"order.placed\"\0{}",
        b"event.data.total > 100 && has(event.data.x)\0{\"total\": 101, \"x\": null}",
        b"event.data.all(x, x in [1, 2])\0[1, 2, 3]",
        b"event.data.a[0].b['c'] ? true : event.id.startsWith('1')\0{\"a\": [{\"b\": {\"c\": false}}]}",
        b"timestamp(event.time) < timestamp('2030-01-01T00:00:00Z') || duration('1h') > duration('1m')\0",
        b"event.id.matches('^[0-9]+$') && size(event.data) % 2 == 0\0\"text\"",
        b"[[[[1]]]].map(x, x.map(y, y)).exists(z, z == [[[1]]])\0null",
        b"-9223372036854775808 / -1 == 0 || 1u - 2u == 0u\0 1e400",
    ];
    let words = [
        "(",
        ")",
        ".",
        "[",
        "]",
        "{",
        "}",
        "!",
        "-",
        "&&",
        "||",
        "?",
        ":",
        ".map(x, ",
        ".all(y, ",
        "event.data",
        "\0",
        "\u{e9}",
    ];
    drive(13, 2_000, &corpus, &words, rule);
}
