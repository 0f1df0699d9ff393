//! The targets, driven by seeds.

use std::time::{Duration, Instant};

use super::*;

const REPLIES: [&[u8]; 8] = [
    b"\x00+OK\r\n:1\r\n-ERR no\r\n$-1\r\n*-1\r\n$0\r\n\r\n",
    b"\x03*1\r\n*2\r\n$6\r\norders\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$4\r\ndata\r\n$2\r\n{}\r\n$8\r\nmetadata\r\n$9\r\n{\"a\":\"b\"}\r\n",
    b"\x01*2\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n*2\r\n$22\r\n18446744073709551615-18\r\n*0\r\n",
    b"\x07*1\r\n*4\r\n$3\r\n1-0\r\n$1\r\nc\r\n:1000\r\n:2\r\n",
    b"\x10*1\r\n*6\r\n$4\r\nname\r\n$1\r\nc\r\n$7\r\npending\r\n:0\r\n$4\r\nidle\r\n:-1\r\n",
    b"\xff*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    b"\x02$99999999999999999999\r\n",
    b"\x05*1048576\r\n:1\r\n",
];

const WORDS: [&str; 12] =
    ["\r\n", "*1\r\n", "$1\r\nx\r\n", ":1\r\n", "*-1\r\n", "$-1\r\n", "-", "+", "\n", "9", "\0", "1-0"];

#[test]
fn what_a_server_sends() {
    drive(31, 30_000, &REPLIES, &WORDS, codec);
}

#[test]
fn what_is_sent_to_it() {
    let corpus: [&[u8]; 4] = [b"XADD\0orders\0*\0data\0{}", b"", b"\0\0", b"\xff\r\n$1"];
    drive(32, 30_000, &corpus, &WORDS, commands);
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
