//! What closed channels and lost connections mean to the host.

use whimbrel_sdk::Failure;

use crate::protocol::Closed;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// Why a channel is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The broker closed it: something asked on it was wrong. Nothing else is harmed.
    Closed(Closed),
    /// Its connection is gone.
    Broken(String),
}

impl Lost {
    /// The same, for people.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Closed(closed) => &closed.text,
            Self::Broken(why) => why,
        }
    }

    /// What it means to whoever declares or subscribes. `what`: the thing that was asked for, for people.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        match self {
            Self::Closed(closed) => of_closed(closed, what),
            Self::Broken(why) => Failure::Transient(format!("{what}: {why}")),
        }
    }
}

/// What the end of a channel means.
pub(crate) fn of_closed(closed: &Closed, what: &str) -> Failure {
    let text = &closed.text;
    match closed.code {
        ACCESS_REFUSED => Failure::Unauthorized(format!("{what}: the RabbitMQ user lacks a permission: {text}")),
        PRECONDITION_FAILED if text.contains("timeout") => Failure::Transient(format!("{what}: {text}")),
        PRECONDITION_FAILED => Failure::Invalid(format!("{what}: {text}. {}", remedy(text))),
        RESOURCE_LOCKED => Failure::Invalid(format!("{what}: it is for the use of another connection alone: {text}")),
        NOT_FOUND => Failure::Transient(format!("{what}: it was deleted meanwhile: {text}")),
        _ => Failure::Transient(format!("{what}: RabbitMQ closed the channel: {} {text}", closed.code)),
    }
}

/// Whether the broker says that an exchange or a queue is not there.
pub(crate) fn is_missing(closed: &Closed) -> bool {
    closed.code == NOT_FOUND
}

/// Whether the broker says that a permission is missing.
pub(crate) fn is_refused(closed: &Closed) -> bool {
    closed.code == ACCESS_REFUSED
}

/// The largest message the broker takes, if it closed the channel for one that is larger.
pub(crate) fn size_limit(closed: &Closed) -> Option<usize> {
    let (_, rest) = closed.text.split_once("max size").filter(|_| closed.code == PRECONDITION_FAILED)?;
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// What the broker says about an exchange: `... exchange 'orders' in vhost ...`.
pub(crate) fn names_exchange(closed: &Closed, exchange: &str) -> bool {
    closed.text.contains(&format!("exchange '{exchange}'"))
}

/// Which setting to change, where something exists with others.
fn remedy(text: &str) -> String {
    let argument = text.split_once("arg '").and_then(|(_, rest)| rest.split_once('\'')).map(|(argument, _)| argument);
    let setting = match argument {
        Some("durable") => "durable",
        Some("auto_delete") => "deletedWhenUnused",
        Some("type") => "exchangeKind",
        Some("x-queue-type") => "queueType",
        Some("x-max-length") => "maxLen",
        Some("x-max-length-bytes") => "maxLenBytes",
        Some("x-overflow") => "overflow",
        Some("x-max-priority") => "maxPriority",
        Some("x-single-active-consumer") => "singleActiveConsumer",
        Some("x-dead-letter-exchange") => "enableDeadLetter",
        _ => return "Change the setting, or delete what exists".to_owned(),
    };
    format!("Change metadata {setting}, or delete what exists with another value")
}

/// What the end of a connection means that was never open. `user` and `vhost` are the ones asked for.
pub(crate) fn of_handshake(closed: &Closed, user: &str, vhost: &str) -> Failure {
    let text = &closed.text;
    match closed.code {
        ACCESS_REFUSED => Failure::Unauthorized(format!(
            "metadata connectionString, username, password, saslExternal: RabbitMQ does not accept these credentials: {text}"
        )),
        NOT_ALLOWED if text.contains("not found") => Failure::Invalid(format!(
            "metadata connectionString names the virtual host {vhost:?}, which does not exist: create it, or name another"
        )),
        NOT_ALLOWED if text.contains("refused") && !text.contains("limit") => Failure::Unauthorized(format!(
            "metadata connectionString: the user {user:?} has no permission for the virtual host {vhost:?}: {text}"
        )),
        _ => Failure::Transient(format!("RabbitMQ closed the connection: {} {text}", closed.code)),
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
