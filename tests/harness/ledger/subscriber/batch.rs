//! A subscriber that gets its events in batches, and answers them in every way an app can. Called by the app of a test.

use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Says, Subscriber};
use crate::harness::app::Reply;
use crate::harness::ledger::lock;

/// Every so many batches each kind of answer to a whole batch comes once.
const KINDS_EVERY: u64 = 16;

/// Every so many batches one gets no answer.
const SILENCE_EVERY: u64 = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    #[serde(borrow)]
    entries: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    entry_id: String,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl Subscriber {
    /// One batch: what is to be written is on the disk, and then the answer says of each event what is said of it, or
    /// fails as a whole.
    pub(crate) async fn take_batch(&self, body: &[u8]) -> Reply {
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        let Ok(Batch { entries }) = serde_json::from_slice(body) else {
            lock(&self.foreign).push(String::from_utf8_lossy(body).into_owned());
            return Reply::ok();
        };
        self.largest_batch.fetch_max(entries.len() as u64, Ordering::Relaxed);
        self.takes_its_time().await;
        if number % KINDS_EVERY == 1 {
            // Before it has looked at anything.
            return Reply::status(500);
        }
        let mut statuses = Vec::with_capacity(entries.len());
        for (id, says) in futures::future::join_all(entries.iter().map(|entry| self.entry(entry))).await {
            statuses.push(json!({"entryId": id, "status": word(says)}));
        }
        answer(number, statuses)
    }

    async fn entry<'a>(&self, entry: &'a Entry<'_>) -> (&'a str, Says) {
        let event = entry.event.get();
        let Some(n) = self.recognise(event.as_bytes()) else {
            lock(&self.foreign).push(event.to_owned());
            return (&entry.entry_id, Says::Done);
        };
        (&entry.entry_id, self.decide(n).await)
    }
}

/// A word nobody knows is a failure as good as any.
fn word(says: Says) -> &'static str {
    match says {
        Says::Done => "SUCCESS",
        Says::Retry => "RETRY",
        Says::Drop => "DROP",
        Says::Fails => "what nobody knows",
    }
}

/// What the host hears of it: mostly the truth.
fn answer(number: u64, mut statuses: Vec<Value>) -> Reply {
    match number % KINDS_EVERY {
        3 => return Reply::With(200, r#"{"statuses": ["#.into()),
        5 => return Reply::Cut,
        7 => return Reply::status(503),
        9 => statuses.truncate(statuses.len() / 2),
        11 => statuses.push(json!({"entryId": "a stranger", "status": "SUCCESS"})),
        13 if number % SILENCE_EVERY == 13 => return Reply::Never,
        15 => return Reply::With(200, String::new()),
        _ => {}
    }
    Reply::With(200, json!({"statuses": statuses}).to_string())
}
