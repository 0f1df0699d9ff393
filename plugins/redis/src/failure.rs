//! What Redis's error replies and lost connections mean to the host.

use whimbrel_sdk::Failure;

use crate::protocol::Reply;

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was never written.
    Unsent(String),
    /// It was written, or partly: whether it took effect is not known.
    Unanswered(String),
}

impl Lost {
    /// The same, as the host knows it.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Unsent(why) => Failure::Transient(format!("not sent to Redis: {why}")),
            Self::Unanswered(why) => Failure::Unknown(format!("sent to Redis, but not answered: {why}")),
        }
    }
}

/// The code an error reply begins with.
pub(crate) fn code(error: &str) -> &str {
    error.split([' ', ':']).next().unwrap_or_default()
}

/// Whether the error is about credentials: no use to try again with the same.
pub(crate) fn of_credentials(error: &str) -> bool {
    matches!(code(error), "NOAUTH" | "WRONGPASS")
        || error.starts_with("ERR AUTH")
        || error.starts_with("ERR invalid password")
}

/// What an error reply to a command about a stream means.
pub(crate) fn of_error(error: &str, stream: &str) -> Failure {
    match code(error) {
        "OOM" => Failure::Throttled((format!("Redis is out of memory: {error}"), 0)),
        "LOADING" | "BUSY" | "READONLY" | "MISCONF" | "NOREPLICAS" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
            Failure::Transient(format!("Redis refuses for now: {error}"))
        }
        "NOAUTH" | "WRONGPASS" => {
            Failure::Unauthorized(format!("metadata redisUsername, redisPassword: Redis does not accept them: {error}"))
        }
        "NOPERM" => {
            Failure::Unauthorized(format!("the Redis user (metadata redisUsername) lacks a permission: {error}"))
        }
        "WRONGTYPE" => Failure::Permanent(format!(
            "the Redis key {stream:?} holds something else than a stream: delete or rename that key, or use another topic"
        )),
        "MOVED" | "ASK" | "CROSSSLOT" => Failure::Permanent(format!(
            "metadata redisHost names a node of a Redis Cluster, which this adapter does not speak: {error}"
        )),
        "NOGROUP" => Failure::Transient(format!("the stream {stream:?} or its group was deleted: {error}")),
        _ => Failure::Permanent(format!("Redis answered: {error}")),
    }
}

/// The reply, unless it is an error.
///
/// # Errors
/// What the error means.
pub(crate) fn sound<'a>(reply: Reply<'a>, stream: &str) -> Result<Reply<'a>, Failure> {
    match reply.error() {
        Some(error) => Err(of_error(error, stream)),
        None => Ok(reply),
    }
}

#[cfg(test)]
mod tests;
