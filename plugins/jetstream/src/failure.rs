//! What NATS's errors and lost connections mean to the host.

use whimbrel_sdk::Failure;

use crate::api::ApiError;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was never written.
    Unsent(String),
    /// It was written, or partly: whether it took effect is not known.
    Unanswered(String),
    /// The server refused to pass it on: the user may not publish to this subject.
    Denied(String),
}

impl Lost {
    /// The same, as the host knows it.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Unsent(why) => Failure::Transient(format!("not sent to NATS: {why}")),
            Self::Unanswered(why) => Failure::Unknown(format!("sent to NATS, but not answered: {why}")),
            Self::Denied(subject) => denied("publish to", &subject),
        }
    }
}

/// A permission is missing.
pub(crate) fn denied(what: &str, subject: &str) -> Failure {
    Failure::Unauthorized(format!(
        "the NATS user (metadata natsURL, token, jwt) may not {what} {subject}: grant it that permission"
    ))
}

/// The subject in the text of a permission error.
pub(crate) fn denied_subject<'a>(error: &'a str, what: &str) -> Option<&'a str> {
    let rest = error.strip_prefix("Permissions Violation for ")?.strip_prefix(what)?;
    rest.split('"').nth(1)
}

/// Whether the error is about credentials: no use to try again with the same.
pub(crate) fn of_credentials(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["authorization violation", "authentication expired", "authentication revoked", "account authentication expired"]
        .iter()
        .any(|known| error.contains(known))
}

/// JetStream's own numbers for what this adapter has something to say about.
pub(crate) mod number {
    pub(crate) const CONSUMER_NOT_FOUND: u32 = 10014;
    pub(crate) const CONSUMER_EXISTS: u32 = 10148;
    pub(crate) const STREAM_NOT_FOUND: u32 = 10059;
    pub(crate) const STREAM_NAME_IN_USE: u32 = 10058;
    pub(crate) const STREAMS_OVERLAP: u32 = 10065;
    pub(crate) const NOT_ENABLED: u32 = 10039;
    pub(super) const TOO_LARGE: [u32; 2] = [10054, 10097];
    /// Memory, storage or messages are used up: of the stream, the account or the server.
    pub(super) const LIMITS: [u32; 6] = [10023, 10028, 10047, 10077, 10122, 10123];
}

/// What an error answer means. `what` is what was asked for.
pub(crate) fn of_api(error: &ApiError, what: &str) -> Failure {
    let text = format!("{what}: JetStream answered: {} ({})", error.description, error.err_code);
    match (error.err_code, error.code) {
        (number::NOT_ENABLED, _) => {
            Failure::Permanent(format!("{text}. Enable JetStream on the server and for this account"))
        }
        (code, _) if number::TOO_LARGE.contains(&code) => Failure::Invalid(text),
        (code, _) if number::LIMITS.contains(&code) => {
            Failure::Throttled((format!("{text}. Consume messages, or raise the limits"), 0))
        }
        (number::STREAM_NOT_FOUND | number::CONSUMER_NOT_FOUND, _) | (_, 500..) => Failure::Transient(text),
        _ => Failure::Permanent(text),
    }
}

/// What a failure says.
pub(crate) fn text(failure: Failure) -> String {
    match failure {
        Failure::Transient(text)
        | Failure::Unknown(text)
        | Failure::Permanent(text)
        | Failure::Throttled((text, _))
        | Failure::Unauthorized(text)
        | Failure::Invalid(text) => text,
    }
}

#[cfg(test)]
mod tests;
