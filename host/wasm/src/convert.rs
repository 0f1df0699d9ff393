//! Between the contract's types and the data plane's. One function a type and direction.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::{Arrived, BrokerError, Features, Message, SettleError, StartPosition, Verdict};

use crate::bindings::adapter::exports::whimbrel::pubsub::broker as wit;
use crate::bindings::adapter::whimbrel::pubsub::types;

/// The longest that a broker may ask to wait; what it asks beyond is cut to it.
const THROTTLED_WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) fn message(message: Message) -> types::Message {
    types::Message {
        topic: message.topic.as_ref().to_owned(),
        key: message.key,
        data: message.data.into(),
        metadata: message.metadata,
    }
}

pub(crate) fn arrived(delivery: wit::Delivery) -> Arrived {
    let wit::Delivery { token, id, message, count } = delivery;
    let message = Message {
        topic: Arc::from(message.topic),
        key: message.key,
        data: message.data.into(),
        metadata: message.metadata,
    };
    Arrived { token, id, message, count }
}

pub(crate) fn start(start: StartPosition) -> wit::StartPosition {
    match start {
        StartPosition::Earliest => wit::StartPosition::Earliest,
        StartPosition::Latest => wit::StartPosition::Latest,
    }
}

pub(crate) fn settlement(token: u64, verdict: Verdict) -> wit::Settlement {
    let verdict = match verdict {
        Verdict::Ack => wit::Verdict::Ack,
        Verdict::Retry(wait) => wit::Verdict::Retry(nanos(wait)),
    };
    wit::Settlement { token, verdict }
}

/// The texts are cut: they end up in log lines, and some in answers.
pub(crate) fn failure(failure: types::Failure) -> BrokerError {
    let cut = |text: String| crate::log::cut(&text);
    match failure {
        types::Failure::Transient(text) => BrokerError::Transient(cut(text)),
        types::Failure::Unknown(text) => BrokerError::Unknown(cut(text)),
        types::Failure::Permanent(text) => BrokerError::Permanent(cut(text)),
        types::Failure::Throttled((message, wait)) => BrokerError::Throttled {
            message: cut(message),
            retry_after: Duration::from_nanos(wait).min(THROTTLED_WAIT_MAX),
        },
        types::Failure::Unauthorized(text) => BrokerError::Unauthorized(cut(text)),
        types::Failure::Invalid(text) => BrokerError::Invalid(cut(text)),
    }
}

pub(crate) fn settle_failure(error: wit::SettleFailure) -> SettleError {
    match error {
        wit::SettleFailure::Stale => SettleError::Stale,
        wit::SettleFailure::Failed(error) => SettleError::Failed(failure(error)),
    }
}

pub(crate) fn features(set: &wit::FeatureSet) -> Features {
    let has = |feature| set.abilities.contains(feature);
    Features {
        durable: has(wit::Feature::DURABLE),
        ttl: has(wit::Feature::TTL),
        ordering: has(wit::Feature::ORDERING),
        wildcards: has(wit::Feature::WILDCARDS),
        delay: has(wit::Feature::DELAY),
        delivery_count: has(wit::Feature::DELIVERY_COUNT),
        groups: has(wit::Feature::GROUPS),
        topic_flow: has(wit::Feature::TOPIC_FLOW),
        max_batch: set.max_batch.max(1),
        max_message_bytes: set.max_message_bytes,
    }
}

/// A length of time in the contract's nanoseconds: centuries fit.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long until a deadline, in the contract's nanoseconds.
pub(crate) fn until(deadline: Instant) -> u64 {
    nanos(deadline.saturating_duration_since(Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_says_is_bounded() {
        let ever = types::Failure::Throttled(("a\nb".to_owned(), u64::MAX));
        let expect = BrokerError::Throttled { message: "a ⏎ b".to_owned(), retry_after: THROTTLED_WAIT_MAX };
        assert_eq!(failure(ever), expect);
        let BrokerError::Permanent(text) = failure(types::Failure::Permanent("x".repeat(1 << 20))) else {
            panic!("another failure");
        };
        assert!(text.len() < 1 << 12, "{} bytes", text.len());
    }
}
