//! The resource's settings: `plugin.yaml` describes each.

use std::fmt;
use std::time::Duration;

use regex_lite::Regex;
use whimbrel_sdk::net::Tls;
use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{Config, Failure, StartPosition};

/// A Kafka listener's usual port.
const PORT: u16 = 9092;

/// What Apache Kafka takes by default for one record batch (`message.max.bytes`).
const BATCH_BYTES: usize = 1_048_588;

/// The largest `maxMessageBytes`: a component's memory has room for few of them.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// The most bytes a broker answers one fetch with, per partition, whatever the resource says.
const FETCH_BYTES_MAX: usize = 16 << 20;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How to prove who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// As the protocol spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sasl {
    pub(crate) mechanism: Mechanism,
    pub(crate) username: String,
    pub(crate) password: Secret,
}

/// Whose confirmation makes a publish a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// All replicas that are in sync.
    All,
    /// The leader alone.
    Leader,
    /// Nobody: what was written counts as stored.
    Nobody,
}

impl Acks {
    /// As the protocol numbers it.
    pub(crate) fn number(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::Nobody => 0,
        }
    }
}

/// How record batches are written. All of Kafka's ways are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// How the partitions of a group are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Ours: members keep what they have while others come and go. Offered together with `range`, so that members
    /// that only know that one (Dapr's) can be in the same group.
    CooperativeSticky,
    Range,
    Sticky,
    RoundRobin,
}

/// Which partition a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partitioner {
    /// As Kafka's own clients have it.
    Murmur2,
    /// As Dapr's component has it.
    Fnv1a,
}

/// What the resource says, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where to ask for the cluster, in this order.
    pub(crate) brokers: Vec<(String, u16)>,
    pub(crate) tls: Option<Tls>,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) client_id: String,
    /// Where a group without a commit begins, unless the subscription says.
    pub(crate) initial_offset: StartPosition,
    /// The most bytes of one record batch, and so of one message.
    pub(crate) max_message_bytes: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) session_timeout: Duration,
    /// Bytes a broker waits for before it answers a fetch, at least.
    pub(crate) fetch_min_bytes: i32,
    /// Bytes of one partition in one fetch, at most; one larger batch comes all the same.
    pub(crate) fetch_bytes: i32,
    /// How old what is known about topics may get.
    pub(crate) metadata_refresh: Duration,
    pub(crate) dial_wait: Duration,
    /// How long any answer may take, besides what its request asked the broker to wait.
    pub(crate) read_wait: Duration,
    pub(crate) acks: Acks,
    pub(crate) codec: Codec,
    pub(crate) strategy: Strategy,
    pub(crate) partitioner: Partitioner,
    /// Whether header values and keys are URL-escaped when they are received.
    pub(crate) escape_headers: bool,
    /// Headers that are neither written nor handed out.
    pub(crate) exclude_headers: Option<Regex>,
}

impl Settings {
    /// How long a member of a group waits for an answer: one that hears nothing for its session's time is a member no
    /// more, and must look for another way in time.
    pub(crate) fn answer_wait(&self) -> Duration {
        self.read_wait.min(self.session_timeout)
    }

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let properties = Properties::of(config);
        refuse_unsupported(&properties)?;
        let dapr = one_of(&properties, "compat", &[("none", false), ("dapr", true)])?.unwrap_or(false);
        let (heartbeat, session_timeout) = membership(&properties)?;
        let (sasl, tls) = security(&properties)?;
        Ok(Self {
            brokers: brokers(&properties)?,
            tls,
            sasl,
            client_id: given(&properties, "clientID")
                .unwrap_or_else(|| if dapr { "sarama" } else { "whimbrel" }.into()),
            initial_offset: initial_offset(&properties)?,
            max_message_bytes: match bounded(&properties, "maxMessageBytes", 0, 0, BATCH_BYTES_MAX)? {
                0 => BATCH_BYTES,
                bytes => bytes,
            },
            heartbeat,
            session_timeout,
            fetch_min_bytes: int(bounded(&properties, "consumerFetchMin", 1, 0, FETCH_BYTES_MAX)?),
            fetch_bytes: int(bounded(&properties, "consumerFetchDefault", 1 << 20, 1, FETCH_BYTES_MAX)?),
            metadata_refresh: wait(
                &properties,
                "clientConnectionTopicMetadataRefreshInterval",
                Duration::from_mins(if dapr { 8 } else { 5 }),
            )?,
            dial_wait: wait(&properties, "dialTimeout", Duration::from_secs(if dapr { 30 } else { 10 }))?,
            read_wait: wait(&properties, "readTimeout", Duration::from_secs(if dapr { 30 } else { 10 }))?,
            acks: acks(&properties)?,
            codec: codec(&properties)?,
            strategy: strategy(&properties)?.unwrap_or(if dapr {
                Strategy::Range
            } else {
                Strategy::CooperativeSticky
            }),
            partitioner: if dapr { Partitioner::Fnv1a } else { Partitioner::Murmur2 },
            escape_headers: properties.switch("escapeHeaders", false)?,
            exclude_headers: exclude_headers(&properties)?,
        })
    }
}

fn invalid(name: &str, what: &str) -> Failure {
    Failure::Invalid(format!("metadata {name} {what}"))
}

fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn given(properties: &Properties<'_>, name: &str) -> Option<String> {
    properties.text(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn bounded(properties: &Properties<'_>, name: &str, default: usize, min: usize, max: usize) -> Result<usize, Failure> {
    let number = properties.number(name, default)?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(invalid(name, &format!("must be {min} to {max}"))) }
}

/// One of a few words, without regard to case. `None`: not given.
fn one_of<T: Copy>(properties: &Properties<'_>, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
    let Some(text) = given(properties, name) else { return Ok(None) };
    match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Err(invalid(name, &format!("must be one of {}", words.join(", "))))
        }
    }
}

/// A wait. 0 stands for the default: everything here has a bound.
fn wait(properties: &Properties<'_>, name: &str, default: Duration) -> Result<Duration, Failure> {
    let wait = properties.duration(name, default)?;
    Ok(if wait.is_zero() { default } else { wait })
}

fn membership(properties: &Properties<'_>) -> Result<(Duration, Duration), Failure> {
    let heartbeat = wait(properties, "heartbeatInterval", Duration::from_secs(3))?;
    let session = wait(properties, "sessionTimeout", Duration::from_secs(10))?;
    if heartbeat * 2 > session {
        return Err(invalid("heartbeatInterval", "must be at most half of sessionTimeout, better a third"));
    }
    Ok((heartbeat, session))
}

fn brokers(properties: &Properties<'_>) -> Result<Vec<(String, u16)>, Failure> {
    let text = properties.required("brokers")?;
    let addresses: Option<Vec<_>> =
        text.split(',').map(str::trim).filter(|address| !address.is_empty()).map(address).collect();
    match addresses {
        Some(addresses) if !addresses.is_empty() => Ok(addresses),
        _ => Err(invalid("brokers", "must be host:port, or a comma-separated list of them")),
    }
}

fn address(text: &str) -> Option<(String, u16)> {
    // An IPv6 address has colons of its own; with a port it stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let sound = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    sound.then(|| (host.to_owned(), port))
}

fn initial_offset(properties: &Properties<'_>) -> Result<StartPosition, Failure> {
    let words = [
        ("newest", StartPosition::Latest),
        ("oldest", StartPosition::Earliest),
        ("latest", StartPosition::Latest),
        ("earliest", StartPosition::Earliest),
    ];
    Ok(one_of(properties, "initialOffset", &words)?.unwrap_or(StartPosition::Latest))
}

fn acks(properties: &Properties<'_>) -> Result<Acks, Failure> {
    let words = [
        ("all", Acks::All),
        ("local", Acks::Leader),
        ("none", Acks::Nobody),
        ("-1", Acks::All),
        ("1", Acks::Leader),
        ("0", Acks::Nobody),
    ];
    Ok(one_of(properties, "producerRequiredAcks", &words)?.unwrap_or(Acks::All))
}

fn codec(properties: &Properties<'_>) -> Result<Codec, Failure> {
    let words = [
        ("none", Codec::None),
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ];
    Ok(one_of(properties, "compression", &words)?.unwrap_or(Codec::None))
}

fn strategy(properties: &Properties<'_>) -> Result<Option<Strategy>, Failure> {
    let words = [
        ("range", Strategy::Range),
        ("sticky", Strategy::Sticky),
        ("roundrobin", Strategy::RoundRobin),
        ("cooperative-sticky", Strategy::CooperativeSticky),
    ];
    one_of(properties, "consumerGroupRebalanceStrategy", &words)
}

fn exclude_headers(properties: &Properties<'_>) -> Result<Option<Regex>, Failure> {
    let name = "excludeHeaderMetaRegex";
    let Some(text) = given(properties, name) else { return Ok(None) };
    Regex::new(&text).map(Some).map_err(|error| invalid(name, &format!("is not a regular expression: {error}")))
}

/// Settings that change what the adapter does, and that it must not pass over in silence; and those that are read only
/// sometimes, or never, and still must be what they are described as.
fn refuse_unsupported(properties: &Properties<'_>) -> Result<(), Failure> {
    for name in ["schemaRegistryURL", "schemaRegistryAPIKey", "schemaRegistryAPISecret"] {
        if given(properties, name).is_some() {
            return Err(invalid(name, "is not supported by this adapter: it knows no schemas, remove it"));
        }
    }
    properties.switch("authRequired", false)?;
    properties.number("channelBufferSize", 0_u32)?;
    mechanism(properties).map(|_| ())
}

/// How a resource says that clients prove who they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthType {
    None,
    Password,
    Certificate,
    Unsupported(&'static str),
}

fn auth_type(properties: &Properties<'_>) -> Result<AuthType, Failure> {
    let words = [
        ("none", AuthType::None),
        ("password", AuthType::Password),
        ("mtls", AuthType::Certificate),
        ("certificate", AuthType::Certificate),
        ("oidc", AuthType::Unsupported("oidc")),
        ("oidc_private_key_jwt", AuthType::Unsupported("oidc_private_key_jwt")),
        ("awsiam", AuthType::Unsupported("awsiam")),
    ];
    let auth = match one_of(properties, "authType", &words)? {
        Some(auth) => auth,
        // The older way to say it.
        None if properties.switch("authRequired", false)? => AuthType::Password,
        None if properties.text("authRequired").is_some() => AuthType::None,
        None => return Err(invalid("authType", "is required: none, password or mtls")),
    };
    match auth {
        AuthType::Unsupported(word) => {
            Err(invalid("authType", &format!("{word} is not supported by this adapter: use password, mtls or none")))
        }
        auth => Ok(auth),
    }
}

/// Credentials and TLS. Dapr's component speaks TLS exactly when there is something about it in the metadata, and
/// `disableTls` has the last word.
fn security(properties: &Properties<'_>) -> Result<(Option<Sasl>, Option<Tls>), Failure> {
    let auth = auth_type(properties)?;
    let sasl = if auth == AuthType::Password { Some(sasl(properties)?) } else { None };
    let identity = match (given(properties, "clientCert"), given(properties, "clientKey")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) if auth == AuthType::Certificate => {
            return Err(invalid("clientCert", "and clientKey are required where authType is mtls"));
        }
        (None, None) => None,
        (Some(_), None) => return Err(invalid("clientKey", "is required where clientCert is set")),
        (None, Some(_)) => return Err(invalid("clientCert", "is required where clientKey is set")),
    };
    let ca = given(properties, "caCert");
    let skip_verify = properties.switch("skipVerify", false)?;
    let disabled = properties.switch("disableTls", false)?;
    if disabled && auth == AuthType::Certificate {
        return Err(invalid("disableTls", "must not be true where authType is mtls"));
    }
    // Credentials go over TLS unless the resource says in so many words that they need not.
    let wanted = sasl.is_some() || auth == AuthType::Certificate || ca.is_some() || skip_verify || identity.is_some();
    let tls = Tls { server_name: None, ca, identity, skip_verify };
    Ok((sasl, (wanted && !disabled).then_some(tls)))
}

fn mechanism(properties: &Properties<'_>) -> Result<Mechanism, Failure> {
    let words = [
        ("PLAINTEXT", Mechanism::Plain),
        ("PLAIN", Mechanism::Plain),
        ("SHA-256", Mechanism::ScramSha256),
        ("SHA-512", Mechanism::ScramSha512),
        ("SCRAM-SHA-256", Mechanism::ScramSha256),
        ("SCRAM-SHA-512", Mechanism::ScramSha512),
    ];
    Ok(one_of(properties, "saslMechanism", &words)?.unwrap_or(Mechanism::Plain))
}

fn sasl(properties: &Properties<'_>) -> Result<Sasl, Failure> {
    let required =
        |name| given(properties, name).ok_or_else(|| invalid(name, "is required where authType is password"));
    Ok(Sasl {
        mechanism: mechanism(properties)?,
        username: required("saslUsername")?,
        password: Secret(required("saslPassword")?),
    })
}

#[cfg(test)]
mod tests;
