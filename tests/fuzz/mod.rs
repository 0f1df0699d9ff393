//! The fuzz targets of the crates, driven by seeds: no coverage guides them, but they run on every machine. A
//! coverage-guided fuzzer calls the same targets as they are.

mod events;
mod redis;
mod resources;

use std::time::{Duration, Instant};

use crate::harness::scale::scaled;

/// How long one input may take, on a machine that builds at the same time.
const CALL_MAX: Duration = Duration::from_secs(2);

/// Says which input it was, where a target panics.
struct Told<'a> {
    number: usize,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input {}: {:?}", self.number, String::from_utf8_lossy(self.input));
            eprintln!("its bytes: {:?}", self.input);
        }
    }
}

/// Gives a target what stands in the corpus, then what came of it by damage. The seed decides all of it.
fn drive(seed: u64, count: u64, corpus: &[&[u8]], words: &[&str], target: fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(seed);
    let sound = corpus.iter().map(|input| input.to_vec());
    let count = scaled(count);
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
