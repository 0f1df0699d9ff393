//! Every way the data plane can fail, typed where somebody branches.

use std::time::Duration;

/// What a broker's worker answered (wit `failure`), or what became of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Nothing was stored; the same call may succeed later.
    #[error("{0}")]
    Transient(String),
    /// The message may be stored or not.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Never to be tried again.
    #[error("{0}")]
    Permanent(String),
    /// The broker asks to wait.
    #[error("{message}")]
    Throttled {
        /// What it said.
        message: String,
        /// How long; zero: not said.
        retry_after: Duration,
    },
    /// Credentials or permissions.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// The request itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Too much waits for this broker already.
    #[error("too many publishes wait for this broker")]
    Overloaded,
    /// The component's circuit breaker let nothing through: nothing was sent.
    #[error("{0}")]
    Broken(String),
    /// The broker was closed, or its adapter used up its restarts.
    #[error("the broker is closed")]
    Closed,
}

impl BrokerError {
    /// Whether somebody must change something before the same call can succeed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Unauthorized(_) | Self::Permanent(_))
    }
}

/// Why a settlement had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The token belongs to an earlier connection; the broker delivers again what was not acknowledged.
    #[error("the delivery belongs to an earlier connection")]
    Stale,
    /// The broker did not confirm.
    #[error("{0}")]
    Failed(BrokerError),
}

/// Why an attempt to deliver an event did not bring an outcome. All of them are retried as the policy says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// The app answered with a status that does not mean success. What it does mean is the subscription's to say
    /// (`onStatus`); 404 is "not for me" unless it says otherwise.
    #[error("the app answered {0}")]
    Status(u16),
    /// The handler answered an error, or a status word nobody knows.
    #[error("{0}")]
    Failed(String),
    /// The app could not be reached, or the connection broke.
    #[error("{0}")]
    Transport(String),
    /// No answer within the policy's timeout or the handler's own deadline.
    #[error("no answer in time")]
    Timeout,
    /// The instance trapped or was lost while it had this event and no other: the event is the culprit as far as
    /// anybody can tell, so this counts as an attempt.
    #[error("the handler was lost: {0}")]
    Lost(String),
    /// Its worker ended without an answer. Nobody knows whether the event was looked at, so this is no attempt.
    #[error("the handler's worker has ended")]
    Gone,
    /// The app is ill, so it was not asked. This is no attempt.
    #[error("the app is not in a healthy state")]
    Unwell,
}

/// Why a publish was refused or failed. `api::error` maps each to its status, code and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No such broker, or none for this app.
    #[error("pubsub {pubsub} is not found")]
    NotFound {
        /// The name asked for.
        pubsub: String,
    },
    /// The name was empty.
    #[error("pubsub name is empty")]
    PubsubEmpty,
    /// The topic was empty.
    #[error("topic is empty in pubsub {pubsub}")]
    TopicEmpty {
        /// The broker.
        pubsub: String,
    },
    /// `rawPayload` is not a boolean.
    #[error("failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is '{actual}'")]
    RawPayload {
        /// What was sent.
        actual: String,
    },
    /// The body claims to be a CloudEvent and is not a JSON object, or cannot be carried as what it claims to be.
    #[error("cannot create cloudevent")]
    CloudEvent {
        /// Why, for people.
        error: String,
    },
    /// The scopes deny it.
    #[error("topic {topic} is not allowed for app id {app_id}")]
    Forbidden {
        /// The topic.
        topic: String,
        /// The app.
        app_id: String,
    },
    /// The broker, or the policy around it, gave up.
    #[error("error when publishing to topic {topic} in pubsub {pubsub}: {error}")]
    Broker {
        /// The topic.
        topic: String,
        /// The broker.
        pubsub: String,
        /// The last answer.
        error: BrokerError,
    },
}
