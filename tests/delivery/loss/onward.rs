//! A handler component that proves what it has handled: it publishes onwards, and an independent client reads that. Called
//! by the loss runs of handlers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::harness::ledger::{Subscriber, recognise_id};
use crate::harness::redis::Reader;

/// How long between two looks at what the handler has published onwards.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// Where the handler publishes onwards to. What is there was confirmed by Redis before the handler said success: it is
/// the handler's durable log.
pub(crate) const DONE: &str = "done";

/// The handler's identity.
pub(crate) const WORKER: &str = "worker";

/// Writes down what the handler proves, by what it has published onwards, to have handled. Ends when it is aborted.
pub(crate) fn follow(mut done: Reader, seed: u64, subscriber: Arc<Subscriber>) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        loop {
            for entry in done.rest().await? {
                // What is no message of this run becomes a phantom.
                subscriber.handled(handled(&entry.data, seed).map_or(u64::MAX, |(n, _)| n)).await?;
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    })
}

/// The number of the message that an entry of [`DONE`] reports, and at which attempt.
pub(crate) fn handled(event: &[u8], seed: u64) -> Option<(u64, u64)> {
    let event: Value = serde_json::from_slice(event).ok()?;
    let report = &event["data"];
    Some((recognise_id(seed, report["id"].as_str()?)?, report["attempt"].as_u64()?))
}
