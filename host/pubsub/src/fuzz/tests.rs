//! The targets, driven by seeds.

use std::time::{Duration, Instant};

use super::*;

const WORDS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "null",
    "1e400",
    "-0",
    "\"id\":1,",
    "\"data\":",
    "\"data_base64\":\"/w==\",",
    "\u{0}",
    "\u{feff}",
    "\n",
    "\"i\\u0064\":\"x\",",
    "\"traceparent\":\"\",",
    "true",
];

const EVENTS: [&[u8]; 7] = [
    br#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"application/json","data":{"a":[1,2]}}"#,
    br#"{"id":"\u00e9\n","id":"2","data":"text","datacontenttype":"text/plain","x":{"y":12345678901234567890123}}"#,
    br#"{"data_base64":"/w==","expiration":"2024-01-01T00:00:00Z","tracestate":"k=v","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#,
    br#" { } "#,
    b"{\"a\":\"\xff\",\"subject\":\"\xc3\xa9\"}",
    br#"[{"id":"1"}]"#,
    br#"{"data":1.50,"pubsubname":null,"topic":false}"#,
];

fn with_byte(bytes: &[u8]) -> Vec<Vec<u8>> {
    let choices = [0, 1, 2, 3, 4, 5, 6, 0x80, 0x85];
    choices.iter().map(|choice| [&[*choice][..], bytes].concat()).collect()
}

#[test]
fn events() {
    drive(21, 40_000, &EVENTS, &WORDS, event);
}

#[test]
fn envelopes() {
    let all: Vec<Vec<u8>> = EVENTS.iter().flat_map(|bytes| with_byte(bytes)).collect();
    let corpus: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    drive(22, 20_000, &corpus, &WORDS, envelope);
}

#[test]
fn deliveries() {
    let all: Vec<Vec<u8>> = EVENTS.iter().flat_map(|bytes| with_byte(bytes)).collect();
    let corpus: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    drive(23, 20_000, &corpus, &WORDS, delivered);
}

/// `WHIMBREL_TEST_SCALE`: what the tests multiply their counts by.
fn test_scale() -> usize {
    std::env::var("WHIMBREL_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
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
    let count = count * test_scale();
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
