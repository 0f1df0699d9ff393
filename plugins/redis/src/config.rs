//! The resource's settings: `plugin.yaml` describes each.

use std::fmt;
use std::time::Duration;

use whimbrel_sdk::net::Tls;
use whimbrel_sdk::properties::Properties;
use whimbrel_sdk::{Config, Failure};

const PORT: u16 = 6379;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How streams are kept short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trim {
    /// Not at all.
    Never,
    /// To about so many entries.
    Length(u64),
    /// To what is about so old.
    Age(Duration),
}

/// What the resource says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: u32,
    /// How often entries of dead consumers are looked for. None: never.
    pub(crate) claim_every: Option<Duration>,
    /// How long an entry may be left alone before another consumer claims it. None: for ever.
    pub(crate) lease: Option<Duration>,
    /// The most entries fetched at once for one subscription.
    pub(crate) queue_depth: usize,
    /// The most unsettled deliveries of one subscription, besides what the host says.
    pub(crate) concurrency: Option<usize>,
    pub(crate) dial_wait: Duration,
    /// How long a blocking read blocks, and how long any answer may take.
    pub(crate) read_wait: Duration,
    pub(crate) trim: Trim,
    /// How many replicas must have a message before its publish has succeeded.
    pub(crate) replicas: u32,
}

impl Settings {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let properties = Properties::of(config);
        refuse_unsupported(&properties)?;
        let (host, port) = address(&properties)?;
        let positive = |name, default| bounded(&properties, name, default, 1);
        let (username, password) = (given(&properties, "redisUsername"), given(&properties, "redisPassword"));
        if username.is_some() && password.is_none() {
            return Err(invalid("redisPassword", "is required where redisUsername is set"));
        }
        Ok(Self {
            host,
            port,
            tls: tls(&properties)?,
            username,
            password: password.map(Secret),
            database: properties.number("redisDB", 0)?,
            claim_every: unless_zero(properties.duration("redeliverInterval", Duration::from_secs(15))?),
            lease: unless_zero(properties.duration("processingTimeout", Duration::from_secs(60))?),
            queue_depth: positive("queueDepth", 100)?,
            concurrency: match given(&properties, "concurrency") {
                Some(_) => Some(positive("concurrency", 1)?),
                None => None,
            },
            dial_wait: wait(&properties, "dialTimeout", Duration::from_secs(5))?,
            read_wait: wait(&properties, "readTimeout", Duration::from_secs(3))?,
            trim: trim(&properties)?,
            replicas: properties.number("publishWaitReplicas", 0)?,
        })
    }
}

fn invalid(name: &str, what: &str) -> Failure {
    Failure::Invalid(format!("metadata {name} {what}"))
}

fn given(properties: &Properties<'_>, name: &str) -> Option<String> {
    properties.text(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn bounded(properties: &Properties<'_>, name: &str, default: usize, min: usize) -> Result<usize, Failure> {
    let number = properties.number(name, default)?;
    if number < min { Err(invalid(name, &format!("must be at least {min}"))) } else { Ok(number) }
}

fn unless_zero(wait: Duration) -> Option<Duration> {
    Some(wait).filter(|wait| !wait.is_zero())
}

/// A wait on the network. Dapr takes -1 (and 0) for no bound; here everything has one, so they stand for the default.
fn wait(properties: &Properties<'_>, name: &str, default: Duration) -> Result<Duration, Failure> {
    if properties.text(name).map(str::trim) == Some("-1") {
        return Ok(default);
    }
    Ok(unless_zero(properties.duration(name, default)?).unwrap_or(default))
}

/// Settings that change what the adapter speaks, and that it must not pass over in silence.
fn refuse_unsupported(properties: &Properties<'_>) -> Result<(), Failure> {
    for name in ["failover", "useEntraID", "useOIDC"] {
        if properties.switch(name, false)? {
            return Err(invalid(name, "is not supported by this adapter: remove it, or set it to false"));
        }
    }
    match given(properties, "redisType").as_deref() {
        None => Ok(()),
        Some(kind) if kind.eq_ignore_ascii_case("node") => Ok(()),
        Some(_) => Err(invalid("redisType", "must be node: Redis Cluster is not supported by this adapter")),
    }
}

fn address(properties: &Properties<'_>) -> Result<(String, u16), Failure> {
    let name = "redisHost";
    let text = properties.required(name)?.trim();
    if text.contains(',') {
        return Err(invalid(name, "names several addresses: clusters and sentinels are not supported by this adapter"));
    }
    let text = text.strip_prefix("redis://").unwrap_or(text);
    // An IPv6 address has colons of its own; with a port it stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(invalid(name, "must be host or host:port"));
    }
    let port: Option<u16> = match port {
        None => None,
        Some(port) => Some(port.parse().map_err(|_| invalid(name, "must be host or host:port"))?),
    };
    let apart = match given(properties, "redisPort") {
        Some(_) => Some(properties.number("redisPort", PORT)?),
        None => None,
    };
    match (port, apart) {
        (Some(port), Some(apart)) if port != apart => Err(invalid("redisPort", "contradicts the port in redisHost")),
        (port, apart) => Ok((host.to_owned(), port.or(apart).unwrap_or(PORT))),
    }
}

fn tls(properties: &Properties<'_>) -> Result<Option<Tls>, Failure> {
    let on = properties.switch("enableTLS", false)?;
    let skip_verify = properties.switch("insecureSkipTLSVerify", false)?;
    let identity = match (given(properties, "clientCert"), given(properties, "clientKey")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(invalid("clientKey", "is required where clientCert is set")),
        (None, Some(_)) => return Err(invalid("clientCert", "is required where clientKey is set")),
    };
    let tls = Tls { server_name: None, ca: given(properties, "caCert"), identity, skip_verify };
    Ok(on.then_some(tls))
}

fn trim(properties: &Properties<'_>) -> Result<Trim, Failure> {
    let length: u64 = properties.number("maxLenApprox", 0)?;
    match (length, unless_zero(properties.duration("streamTTL", Duration::ZERO)?)) {
        (0, None) => Ok(Trim::Never),
        (length, None) => Ok(Trim::Length(length)),
        (0, Some(age)) => Ok(Trim::Age(age)),
        _ => Err(invalid("streamTTL", "and maxLenApprox cannot both be set")),
    }
}

#[cfg(test)]
mod tests;
