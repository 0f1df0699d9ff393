//! The targets, driven by seeds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn files_of_resources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
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

/// How long one input may take, on a machine that builds at the same time.
const CALL_MAX: Duration = Duration::from_secs(2);

/// Says which input it was, where a target panics.
struct Told<'a> {
    number: usize,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    #[allow(clippy::print_stderr, reason = "a test tells what it saw where libtest captures it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input {}: {:?}", self.number, String::from_utf8_lossy(self.input));
            eprintln!("its bytes: {:?}", self.input);
        }
    }
}

/// Gives a target what stands in the corpus, then what came of it by damage. The seed decides all of it.
fn drive(seed: u64, count: usize, corpus: &[&[u8]], words: &[&str], target: fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(seed);
    let sound = corpus.iter().map(|input| input.to_vec());
    let count = count * crate::test_scale();
    let damaged = (0..count).map(|_| damaged(&mut random, corpus, words));
    for (number, input) in sound.chain(damaged).enumerate() {
        let told = Told { number, input: &input };
        let begun = Instant::now();
        target(&input);
        assert!(begun.elapsed() < CALL_MAX, "it took {:?}", begun.elapsed());
        drop(told);
    }
}

fn damaged(random: &mut fastrand::Rng, corpus: &[&[u8]], words: &[&str]) -> Vec<u8> {
    let mut input = corpus[random.usize(..corpus.len())].to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=input.len());
        match random.u8(..6) {
            0 if at < input.len() => input[at] = random.u8(..),
            1 if at < input.len() => drop(input.remove(at)),
            2 => input.truncate(at),
            3 => {
                let other = corpus[random.usize(..corpus.len())];
                let from = random.usize(..=other.len());
                input.splice(at..at, other[from..].iter().copied().take(60));
            }
            4 => {
                let end = (at + random.usize(..8)).min(input.len());
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece.repeat(random.usize(1..40)));
            }
            _ => drop(input.splice(at..at, words[random.usize(..words.len())].bytes())),
        }
    }
    input
}
