//! The host's side of an adapter, for its tests (feature `testing`, native only): opens it on one thread as a component is
//! run, publishes, takes and settles deliveries, and stands between it and its broker ([`Proxy`]).
//!
//! Everything here panics with what went wrong: it is the test that fails then.

mod bus;
mod inbox;
mod proxy;
mod traffic;

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::{Config, Delivery, Message, Property, SubscribeOptions, Verdict};

pub use bus::Bus;
pub use inbox::Inbox;
pub use proxy::Proxy;
pub use traffic::{Account, Traffic};

/// Nothing that should happen takes longer than this, on a machine that is busy with other tests too.
pub const SOON: Duration = Duration::from_secs(60);

/// What should not happen would have by now.
pub const A_WHILE: Duration = Duration::from_millis(300);

/// How long [`run`] gives a test.
const TEST_MAX: Duration = Duration::from_secs(240);

/// How often [`until`] looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Runs a test on one thread, as a component would.
///
/// # Panics
/// It takes longer than four minutes.
pub fn run(test: impl Future<Output = ()>) {
    run_within(TEST_MAX, test);
}

/// The same, with a bound of its own.
///
/// # Panics
/// It takes longer.
pub fn run_within(bound: Duration, test: impl Future<Output = ()>) {
    LocalSet::new().block_on(&runtime(), async {
        tokio::time::timeout(bound, test).await.expect("the test hangs");
    });
}

/// A thread's runtime. What is dropped with it dies without a word, as a killed host does.
///
/// # Panics
/// The system has no more files.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Waits until something holds.
///
/// # Panics
/// It does not hold [`SOON`].
pub async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_within(SOON, what, holds).await;
}

/// The same, for what takes longer.
///
/// # Panics
/// It does not hold in time.
pub async fn until_within(wait: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + wait;
    while !holds().await {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// A configuration as the host would hand it in: the settings in their order, and the instance.
#[must_use]
pub fn config(instance: &str, settings: &[(&str, &str)]) -> Config {
    let property = |(name, value): &(&str, &str)| Property { name: (*name).to_owned(), value: (*value).to_owned() };
    Config {
        name: "bus".to_owned(),
        properties: settings.iter().map(property).collect(),
        instance: instance.to_owned(),
    }
}

/// Subscribe as usual, with so many unsettled at most.
#[must_use]
pub fn options(max_unsettled: u32) -> SubscribeOptions {
    SubscribeOptions { max_unsettled, start: None, metadata: Vec::new() }
}

/// A message without key and metadata.
#[must_use]
pub fn message(topic: &str, data: &[u8]) -> Message {
    Message { topic: topic.to_owned(), key: None, data: data.to_vec(), metadata: Vec::new() }
}

/// Metadata.
#[must_use]
pub fn pairs(metadata: &[(&str, &str)]) -> Vec<(String, String)> {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The number that a message carries as text, see [`Bus::publish_numbers`].
///
/// # Panics
/// It carries something else.
#[must_use]
pub fn number(delivery: &Delivery) -> u32 {
    let text = std::str::from_utf8(&delivery.message.data).expect("text");
    text.parse().expect("a number")
}

/// Once more, after a wait.
///
/// # Panics
/// The wait has more nanoseconds than 64 bits hold.
#[must_use]
pub fn retry(wait: Duration) -> Verdict {
    Verdict::Retry(u64::try_from(wait.as_nanos()).expect("a wait of less than 500 years"))
}
