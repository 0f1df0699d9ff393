//! The resource's settings: `plugin.yaml` describes each.

mod address;

use std::fmt;
use std::time::Duration;

use whimbrel_sdk::net::Tls;
use whimbrel_sdk::properties::{self, Properties};
use whimbrel_sdk::{Config, Failure};

use address::Address;

/// The longest expiry RabbitMQ takes, in milliseconds.
const EXPIRY_MAX_MILLIS: u128 = 4_294_967_295;

/// The shortest heartbeat: a shorter one would take a busy moment for a death.
const HEARTBEAT_MIN_SECONDS: u64 = 1;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How a queue keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueType {
    /// On one node.
    Classic,
    /// On a majority of the nodes, and counting deliveries.
    Quorum,
}

impl QueueType {
    /// As RabbitMQ spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }

    /// Reads RabbitMQ's spelling.
    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Classic, Self::Quorum].into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text.trim()))
    }
}

/// What exchanges and queues are declared with, where a subscription does not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// `auto_delete` was given, and not taken from the defaults.
    pub(crate) auto_delete_given: bool,
    pub(crate) exchange_kind: &'static str,
    pub(crate) queue_type: QueueType,
    pub(crate) max_len: Option<i64>,
    pub(crate) max_len_bytes: Option<i64>,
    /// A full queue refuses what is new, instead of dropping what is old.
    pub(crate) reject_when_full: bool,
    pub(crate) dead_letter: bool,
}

/// What the resource says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
    pub(crate) vhost: String,
    pub(crate) username: String,
    pub(crate) password: Secret,
    /// The certificate says who we are, no password.
    pub(crate) external: bool,
    pub(crate) client_name: Option<String>,
    pub(crate) dial_wait: Duration,
    /// None: no heartbeats.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) declared: Declared,
    pub(crate) delivery_mode: u8,
    pub(crate) ttl: Option<Duration>,
    /// The content type of messages that are published without one.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) allow_unroutable: bool,
    /// A message is done with once the subscriber has had it, whatever became of it.
    pub(crate) auto_ack: bool,
    /// What the host gives back is not delivered again: to the broker's dead-letter queue, if there is one.
    pub(crate) drop_failed: bool,
    /// The most unsettled deliveries of one subscription, besides what the host says.
    pub(crate) prefetch: Option<usize>,
    /// Properties and headers come back as metadata.
    pub(crate) with_metadata: bool,
    /// Names of properties in metadata are Dapr's.
    pub(crate) dapr: bool,
}

impl Settings {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let properties = Properties::of(config);
        let dapr = choice(&properties, "compat", &["safe", "dapr"])? == "dapr";
        let address = Address::read(&properties)?;
        let declared = declared(&properties, dapr)?;
        let requeue = properties.switch("requeueInFailure", !dapr)?;
        let single = is_single(&properties)?;
        let prefetch = match properties.number("prefetchCount", 0)? {
            0 => None,
            count => Some(count),
        };
        // Confirms are always waited for: what is not confirmed is not published.
        properties.switch("publisherConfirm", true)?;
        seconds(&properties, "reconnectWaitSeconds", Duration::ZERO)?;
        Ok(Self {
            external: external(&properties, &address)?,
            tls: tls(&properties, address.tls)?,
            host: address.host,
            port: address.port,
            vhost: address.vhost,
            username: address.username,
            password: Secret(address.password),
            client_name: given(&properties, "clientName"),
            dial_wait: properties.duration("dialTimeout", Duration::from_secs(5))?.max(Duration::from_millis(1)),
            heartbeat: heartbeat(&properties)?,
            drop_failed: !requeue && (declared.dead_letter || dapr),
            declared,
            delivery_mode: delivery_mode(&properties, dapr)?,
            ttl: match given(&properties, "ttlInSeconds") {
                Some(text) => Some(expiry("ttlInSeconds", &text)?),
                None => None,
            },
            content_type: dapr.then_some("text/plain"),
            allow_unroutable: properties.switch("allowUnroutable", true)?,
            auto_ack: properties.switch("autoAck", false)?,
            prefetch: if single { Some(1) } else { prefetch },
            with_metadata: properties.switch("publishMessagePropertiesToMetadata", !dapr)?,
            dapr,
        })
    }

    /// Whether what is confirmed outlives a restart of the broker.
    pub(crate) fn is_durable(&self) -> bool {
        self.declared.durable && !self.declared.auto_delete && self.delivery_mode == 2
    }

    /// What the user should know about settings that are kept and may lose messages, or are not kept.
    pub(crate) fn warnings(&self, config: &Config) -> Vec<&'static str> {
        let properties = Properties::of(config);
        let is = |name, default| properties.switch(name, default).unwrap_or(default);
        let mut warnings = Vec::new();
        if !is("requeueInFailure", true) && !self.drop_failed {
            warnings.push(
                "metadata requeueInFailure: false is not kept without enableDeadLetter: a message that failed is never thrown away",
            );
        }
        if !is("publisherConfirm", true) {
            warnings.push(
                "metadata publisherConfirm: false is not kept: a publish has succeeded when RabbitMQ has confirmed it",
            );
        }
        if self.auto_ack {
            warnings.push("metadata autoAck: true: a message whose handler fails is lost");
        }
        warnings
    }
}

pub(crate) fn invalid(name: &str, what: &str) -> Failure {
    Failure::Invalid(format!("metadata {name} {what}"))
}

fn given(properties: &Properties<'_>, name: &str) -> Option<String> {
    properties.text(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// One of the values; the first is the default.
fn choice(properties: &Properties<'_>, name: &str, values: &[&'static str]) -> Result<&'static str, Failure> {
    let Some(text) = given(properties, name) else { return Ok(values[0]) };
    let found = values.iter().find(|value| value.eq_ignore_ascii_case(&text));
    found.copied().ok_or_else(|| invalid(name, &format!("must be one of {}", values.join(", "))))
}

fn declared(properties: &Properties<'_>, dapr: bool) -> Result<Declared, Failure> {
    let auto_delete_given = given(properties, "deletedWhenUnused").is_some();
    let queue_type = match choice(properties, "queueType", &["classic", "quorum"])? {
        "quorum" => QueueType::Quorum,
        _ => QueueType::Classic,
    };
    Ok(Declared {
        durable: properties.switch("durable", true)?,
        auto_delete: properties.switch("deletedWhenUnused", dapr)?,
        auto_delete_given,
        exchange_kind: choice(properties, "exchangeKind", &["fanout", "topic", "direct", "headers"])?,
        queue_type,
        max_len: length("maxLen", properties.text("maxLen"))?,
        max_len_bytes: length("maxLenBytes", properties.text("maxLenBytes"))?,
        reject_when_full: choice(properties, "overflow", &["drop-head", "reject-publish"])? == "reject-publish",
        dead_letter: properties.switch("enableDeadLetter", false)?,
    })
}

/// The bound of a queue. None, and 0: there is none.
pub(crate) fn length(name: &str, text: Option<&str>) -> Result<Option<i64>, Failure> {
    match text.map(str::trim) {
        None | Some("" | "0") => Ok(None),
        Some(text) => {
            let number = text.parse().ok().filter(|number| *number > 0);
            number.map(Some).ok_or_else(|| invalid(name, "is not a whole number in range"))
        }
    }
}

/// A time after which a message goes: seconds, or a duration.
pub(crate) fn expiry(name: &str, text: &str) -> Result<Duration, Failure> {
    let wrong = || invalid(name, "is not a number of seconds, or a duration such as 90s");
    let expiry = duration(text).ok_or_else(wrong)?;
    if expiry.is_zero() {
        return Err(invalid(name, "must be more than 0"));
    }
    if expiry.as_millis() > EXPIRY_MAX_MILLIS {
        return Err(invalid(name, "is more than RabbitMQ keeps time for (49 days)"));
    }
    Ok(expiry)
}

/// A plain number is seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    text.parse().map(Duration::from_secs).ok().or_else(|| properties::duration(text))
}

fn seconds(properties: &Properties<'_>, name: &str, default: Duration) -> Result<Duration, Failure> {
    let Some(text) = given(properties, name) else { return Ok(default) };
    duration(&text).ok_or_else(|| invalid(name, "is not a number of seconds, or a duration such as 10s"))
}

fn heartbeat(properties: &Properties<'_>) -> Result<Option<Duration>, Failure> {
    let period = seconds(properties, "heartBeat", Duration::from_secs(10))?;
    match period.as_secs() {
        _ if period.is_zero() => Ok(None),
        whole @ HEARTBEAT_MIN_SECONDS..=0xFFFF => Ok(Some(Duration::from_secs(whole))),
        _ => Err(invalid("heartBeat", "must be 0, or between 1s and 65535s")),
    }
}

fn delivery_mode(properties: &Properties<'_>, dapr: bool) -> Result<u8, Failure> {
    match properties.number("deliveryMode", if dapr { 0 } else { 2 })? {
        mode @ 0..=2 => Ok(mode),
        _ => Err(invalid("deliveryMode", "must be 0, 1 or 2 (2: messages are written to disk)")),
    }
}

/// Dapr's description says `concurrency`, its parser reads `concurrencyMode`: both are taken.
fn is_single(properties: &Properties<'_>) -> Result<bool, Failure> {
    let values = ["parallel", "single"];
    let (one, other) = ("concurrency", "concurrencyMode");
    let modes = (choice(properties, one, &values)?, choice(properties, other, &values)?);
    let both = given(properties, one).is_some() && given(properties, other).is_some();
    if both && modes.0 != modes.1 {
        return Err(invalid(one, "and concurrencyMode contradict each other"));
    }
    Ok(modes.0 == "single" || modes.1 == "single")
}

fn external(properties: &Properties<'_>, address: &Address) -> Result<bool, Failure> {
    let external = properties.switch("saslExternal", false)? || address.external;
    if external && !address.tls {
        return Err(invalid("saslExternal", "needs TLS: an address with amqps"));
    }
    if external && given(properties, "clientCert").is_none() {
        return Err(invalid("clientCert", "is required where saslExternal is set"));
    }
    Ok(external)
}

fn tls(properties: &Properties<'_>, on: bool) -> Result<Option<Tls>, Failure> {
    let identity = match (given(properties, "clientCert"), given(properties, "clientKey")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(invalid("clientKey", "is required where clientCert is set")),
        (None, Some(_)) => return Err(invalid("clientCert", "is required where clientKey is set")),
    };
    let tls = Tls { server_name: None, ca: given(properties, "caCert"), identity, skip_verify: false };
    Ok(on.then_some(tls))
}

#[cfg(test)]
mod tests;
