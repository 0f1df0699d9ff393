//! A handler that does what each event says, however bad. Called by the host in tests that show that nobody else suffers.
//!
//! The event's data is `{"do": WORD}` or `{"do": [WORD, ...]}`, a word for each attempt, the last one for all that follow:
//!
//! | word | what happens |
//! |---|---|
//! | `success`, `retry`, `drop` | that outcome |
//! | `error` | an error, its text from `"text"` |
//! | `trap`, `loop`, `grow` | the instance dies, never comes back, takes memory until it gets no more |
//! | `flood-log` | very many log lines, then success |
//! | `publish` | publishes `{"id", "attempt", "handled"}` to `"pubsub"` and `"topic"`, then success; a refusal is an error |
//!
//! `handled` counts the events of this instance, so that a test sees which ones share an instance.
//! Absent on purpose: a `slow` word. Nothing in a handler's world lets it wait but its own publishes.

use std::cell::Cell;
use std::hint::black_box;

use serde_json::{Value, json};
use whimbrel_sdk::handler::{DeliveryInfo, Event, Outcome, publish};
use whimbrel_sdk::log;

/// Lines of one log flood.
const FLOOD_LINES: usize = 20_000;

/// Bytes by which `grow` grows at a time.
const GROW_BYTES: usize = 1 << 20;

thread_local! {
    static HANDLED: Cell<u64> = const { Cell::new(0) };
}

/// Handles one event.
///
/// # Errors
/// As the event says, and for one that says nothing it knows.
#[allow(clippy::needless_pass_by_value, reason = "the contract hands the event over")]
pub fn handle(event: Event, info: DeliveryInfo) -> Result<Outcome, String> {
    HANDLED.set(HANDLED.get() + 1);
    let data: Value = serde_json::from_slice(&event.data).map_err(|error| format!("the data is not JSON: {error}"))?;
    match word(&data["do"], info.attempt) {
        "success" => Ok(Outcome::Success),
        "retry" => Ok(Outcome::Retry),
        "drop" => Ok(Outcome::Drop),
        "error" => Err(data["text"].as_str().unwrap_or("an error on request").to_owned()),
        "trap" => std::process::abort(),
        "loop" => loop {
            black_box(0);
        },
        "grow" => grow(),
        "flood-log" => {
            (0..FLOOD_LINES).for_each(|line| log::warn(&format!("flood, line {line}")));
            Ok(Outcome::Success)
        }
        "publish" => publish_on(&event.id, &data, info.attempt),
        other => Err(format!("unknown word {other:?}")),
    }
}

fn word(what: &Value, attempt: u32) -> &str {
    let for_attempt = match what.as_array() {
        Some(words) => words.get(attempt.saturating_sub(1) as usize).or(words.last()),
        None => Some(what),
    };
    for_attempt.and_then(Value::as_str).unwrap_or_default()
}

fn publish_on(id: &str, data: &Value, attempt: u32) -> Result<Outcome, String> {
    let text = |name: &str| data[name].as_str().ok_or_else(|| format!("{name} is missing"));
    let report = json!({ "id": id, "attempt": attempt, "handled": HANDLED.get() }).to_string();
    let published = publish(text("pubsub")?, text("topic")?, report.as_bytes(), "application/json", &[]);
    published.map(|()| Outcome::Success).map_err(|error| format!("{error:?}"))
}

fn grow() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; GROW_BYTES]);
        black_box(&all);
    }
}

whimbrel_sdk::export_handler!(crate::handle);
