//! What Kafka's error codes, and answers that never came, mean to the host.

use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use whimbrel_sdk::Failure;

use crate::cluster::CallError;

impl CallError {
    /// The same, as the host knows it, for a request that only asks: it may be asked again whatever became of it.
    pub(crate) fn harmless(self) -> Failure {
        match self {
            Self::Unsent(why) | Self::Unanswered(why) => Failure::Transient(format!("no answer from Kafka: {why}")),
            Self::Failure(failure) => failure,
        }
    }
}

/// The error that a code stands for; none for 0.
pub(crate) fn error(code: i16) -> Option<ResponseError> {
    code.err()
}

/// What an error about a topic means: for metadata, publishes and subscriptions alike.
pub(crate) fn of_topic(error: ResponseError, topic: &str) -> Failure {
    match error {
        ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId => missing(topic),
        ResponseError::InvalidTopicException => forbidden(topic),
        ResponseError::TopicAuthorizationFailed => Failure::Unauthorized(format!(
            "the Kafka user (metadata saslUsername) may not see the topic {topic:?}: grant it WRITE on the topic to \
             publish, READ to subscribe"
        )),
        other => of_any(other),
    }
}

/// What an error about a group means.
pub(crate) fn of_group(error: ResponseError, group: &str) -> Failure {
    match error {
        ResponseError::GroupAuthorizationFailed => Failure::Unauthorized(format!(
            "the Kafka user (metadata saslUsername) may not use the consumer group {group:?}: grant it READ on the group"
        )),
        other => of_any(other),
    }
}

/// The user may not publish to a topic that it may see.
pub(crate) fn may_not_write(topic: &str) -> Failure {
    Failure::Unauthorized(format!(
        "the Kafka user (metadata saslUsername) may not publish to the topic {topic:?}: grant it WRITE on the topic"
    ))
}

/// The user may not subscribe to a topic that it may see.
pub(crate) fn may_not_read(topic: &str) -> Failure {
    Failure::Unauthorized(format!(
        "the Kafka user (metadata saslUsername) may not subscribe to the topic {topic:?}: grant it READ on the topic"
    ))
}

/// There is no such topic, and the user may not have it made.
pub(crate) fn may_not_create(topic: &str) -> Failure {
    Failure::Unauthorized(format!(
        "the Kafka topic {topic:?} does not exist, and the Kafka user (metadata saslUsername) may not create it: create the \
         topic, or grant the user CREATE on it"
    ))
}

/// What an error means that has nothing to do with what was asked for in particular.
pub(crate) fn of_any(error: ResponseError) -> Failure {
    match error {
        ResponseError::ClusterAuthorizationFailed => Failure::Unauthorized(
            "the Kafka user (metadata saslUsername) lacks a permission on the cluster: grant it WRITE on the topic it \
             publishes to, and before Kafka 2.8 IDEMPOTENT_WRITE on the cluster"
                .to_owned(),
        ),
        ResponseError::ThrottlingQuotaExceeded => Failure::Throttled((format!("Kafka answered {error}"), 0)),
        // Neither of these is retriable by the protocol's own table, and both pass.
        ResponseError::UnknownServerError | ResponseError::BrokerNotAvailable => {
            Failure::Transient(format!("Kafka answered {error}"))
        }
        other if other.is_retriable() => Failure::Transient(format!("Kafka refuses for now: {other}")),
        other => Failure::Permanent(format!("Kafka answered {other}")),
    }
}

/// There is no such topic.
pub(crate) fn missing(topic: &str) -> Failure {
    Failure::Invalid(format!(
        "the Kafka topic {topic:?} does not exist, and the broker did not create it: create the topic, or switch \
         auto.create.topics.enable on"
    ))
}

/// The longest name of a topic.
const NAME_MAX: usize = 249;

fn forbidden(topic: &str) -> Failure {
    Failure::Invalid(format!(
        "Kafka does not take the topic name {topic:?}: 1 to {NAME_MAX} of the characters a-z A-Z 0-9 . _ -, and not . or .."
    ))
}

/// Whether Kafka takes this name for a topic.
///
/// # Errors
/// `Invalid`: what names may be.
pub(crate) fn check_name(topic: &str) -> Result<(), Failure> {
    let sound = (1..=NAME_MAX).contains(&topic.len())
        && !matches!(topic, "." | "..")
        && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if sound { Ok(()) } else { Err(forbidden(topic)) }
}

/// What a failure says.
pub(crate) fn text(failure: &Failure) -> &str {
    match failure {
        Failure::Transient(text)
        | Failure::Unknown(text)
        | Failure::Permanent(text)
        | Failure::Throttled((text, _))
        | Failure::Unauthorized(text)
        | Failure::Invalid(text) => text,
    }
}

/// Whether somebody must change the resource or the broker before it can work.
pub(crate) fn is_final(failure: &Failure) -> bool {
    matches!(failure, Failure::Invalid(_) | Failure::Unauthorized(_) | Failure::Permanent(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, sound) in
            [("orders", true), ("a.b_c-9", true), ("", false), ("..", false), ("a b", false), ("ü", false)]
        {
            assert_eq!(check_name(name).is_ok(), sound, "{name:?}");
        }
        assert!(check_name(&"x".repeat(249)).is_ok() && check_name(&"x".repeat(250)).is_err());
    }

    #[test]
    fn codes() {
        let check = |error: ResponseError, expected: fn(&Failure) -> bool| {
            let failure = of_topic(error, "orders");
            assert!(expected(&failure), "{error}: {failure:?}");
        };
        check(
            ResponseError::UnknownTopicOrPartition,
            |f| matches!(f, Failure::Invalid(text) if text.contains("orders")),
        );
        check(ResponseError::InvalidTopicException, |f| matches!(f, Failure::Invalid(_)));
        let group = of_group(ResponseError::GroupAuthorizationFailed, "app");
        assert!(matches!(&group, Failure::Unauthorized(text) if text.contains("\"app\"")), "{group:?}");
        check(ResponseError::TopicAuthorizationFailed, |f| matches!(f, Failure::Unauthorized(_)));
        check(ResponseError::NotEnoughReplicas, |f| matches!(f, Failure::Transient(_)));
        check(ResponseError::InvalidRecord, |f| matches!(f, Failure::Permanent(_)));
        assert!(error(0).is_none());
    }
}
