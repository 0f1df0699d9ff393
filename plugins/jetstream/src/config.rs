//! The resource's settings: `plugin.yaml` describes each.

mod servers;

use std::fmt;
use std::time::Duration;

use whimbrel_sdk::net::Tls;
use whimbrel_sdk::properties::{self, Properties};
use whimbrel_sdk::{Config, Failure, log};

pub(crate) use servers::{Server, address_of};

/// The shortest lease: it is renewed three times, and the broker must hear of it in time.
const ACK_WAIT_MIN: Duration = Duration::from_millis(100);

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How this side says who it is, where the server's URL does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// Not at all.
    Nobody,
    /// A token.
    Token(Secret),
    /// A key that signs what the server asks, with a user JWT or alone (`nkey`).
    Key { jwt: Option<Secret>, seed: Secret },
}

/// Which publishes the broker shall take for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deduplication {
    /// None.
    Off,
    /// The same event to the same topic.
    Event,
    /// Events with the same id, whatever is in them and wherever in the stream they go, as Dapr's component does it.
    Id,
}

/// Where a consumer begins that the broker does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    All,
    Last,
    New,
    Sequence(u64),
    /// RFC 3339.
    Time(String),
}

/// What the resource says about consumers. What it does not say is left to the broker, or as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) ack_wait: Option<Duration>,
    pub(crate) max_deliver: Option<i64>,
    pub(crate) back_off: Vec<Duration>,
    pub(crate) max_ack_pending: Option<i64>,
    pub(crate) replicas: Option<usize>,
    pub(crate) memory_storage: bool,
}

/// How streams are created where they are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Creation {
    /// The subjects of the stream `streamName`.
    pub(crate) subjects: Vec<String>,
    pub(crate) replicas: usize,
    pub(crate) memory: bool,
    pub(crate) max_age: Duration,
    pub(crate) max_bytes: i64,
    pub(crate) max_messages: i64,
    pub(crate) duplicate_window: Option<Duration>,
    /// When it is full: refuse what is new, or drop what is oldest.
    pub(crate) refuse_new: bool,
}

/// What the resource says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) servers: Vec<Server>,
    pub(crate) login: Login,
    pub(crate) tls: Tls,
    /// Speak TLS even if the server does not ask for it.
    pub(crate) tls_wanted: bool,
    pub(crate) tls_first: bool,
    pub(crate) client_name: String,
    pub(crate) inbox_prefix: String,
    pub(crate) api_prefix: String,
    pub(crate) stream: Option<String>,
    pub(crate) durable: Option<String>,
    pub(crate) queue_group: Option<String>,
    pub(crate) start: Start,
    pub(crate) terms: Terms,
    /// Whether the resource says something about `maxAckPending` itself.
    pub(crate) max_ack_pending_given: bool,
    /// None: streams are never created.
    pub(crate) creation: Option<Creation>,
    pub(crate) deduplication: Deduplication,
    /// The most unsettled deliveries of one subscription, besides what the host says.
    pub(crate) concurrency: Option<usize>,
    pub(crate) dial_wait: Duration,
    /// How long any answer may take, besides that to a publish.
    pub(crate) request_wait: Duration,
    /// How often a quiet server is asked for a sign of life.
    pub(crate) ping_every: Duration,
}

impl Settings {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(crate) fn of(config: &Config) -> Result<Self, Failure> {
        let given = Given(Properties::of(config));
        let dapr = given.choice("compat", &["none", "dapr"])? == Some("dapr");
        given.check_ignored()?;
        let servers = servers::parse(given.required("natsURL")?)?;
        let tls = given.tls()?;
        let (switched, first) = (given.switch("tlsRequired")?, given.switch("tlsHandshakeFirst")?);
        let told = tls.ca.is_some() || tls.identity.is_some() || tls.skip_verify;
        let queue_group = given.name("queueGroupName")?;
        let durable = given.name("durableName")?;
        Ok(Self {
            servers,
            login: given.login()?,
            tls,
            tls_wanted: told || switched || first,
            tls_first: first,
            client_name: given.text("name").unwrap_or_else(|| format!("whimbrel {}", config.name)),
            inbox_prefix: given.subject("inboxPrefix")?.unwrap_or_else(|| "_INBOX".to_owned()),
            api_prefix: given.api_prefix()?,
            stream: given.name("streamName")?,
            // A group that has no durable consumer to share is Dapr's name for nothing.
            queue_group: queue_group.filter(|_| durable.is_some()),
            durable,
            start: given.start()?,
            terms: given.terms(dapr)?,
            max_ack_pending_given: given.text("maxAckPending").is_some(),
            creation: given.creation()?,
            deduplication: given.deduplication(dapr)?,
            concurrency: given.concurrency(dapr)?,
            dial_wait: given.wait("connectTimeout", Duration::from_secs(5))?,
            request_wait: given.wait("requestTimeout", Duration::from_secs(5))?,
            ping_every: given.wait("pingInterval", Duration::from_secs(5))?,
        })
    }
}

pub(crate) fn invalid(name: &str, what: &str) -> Failure {
    Failure::Invalid(format!("metadata {name} {what}"))
}

/// What was given. Empty text is as if it were not there.
struct Given<'a>(Properties<'a>);

impl Given<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.text(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn required(&self, name: &str) -> Result<&str, Failure> {
        self.0.required(name)
    }

    fn switch(&self, name: &str) -> Result<bool, Failure> {
        self.0.switch(name, false)
    }

    fn choice<'b>(&self, name: &str, choices: &[&'b str]) -> Result<Option<&'b str>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match choices.iter().find(|choice| choice.eq_ignore_ascii_case(&text)) {
            Some(choice) => Ok(Some(choice)),
            None => Err(invalid(name, &format!("must be one of {}", choices.join(", ")))),
        }
    }

    fn number<T: std::str::FromStr + PartialOrd + fmt::Display + Copy>(
        &self,
        name: &str,
        min: T,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if number >= min => Ok(Some(number)),
            _ => Err(invalid(name, &format!("must be a whole number of at least {min}"))),
        }
    }

    /// A length of time. Zero: not given.
    fn duration(&self, name: &str) -> Result<Option<Duration>, Failure> {
        Ok(Some(self.0.duration(name, Duration::ZERO)?).filter(|wait| !wait.is_zero()))
    }

    fn wait(&self, name: &str, default: Duration) -> Result<Duration, Failure> {
        Ok(self.duration(name)?.unwrap_or(default))
    }

    /// A stream's, a consumer's or a group's name.
    fn name(&self, name: &str) -> Result<Option<String>, Failure> {
        let text = self.text(name);
        match &text {
            Some(text) if !is_name(text) => Err(invalid(name, &format!("must be {A_NAME}"))),
            _ => Ok(text),
        }
    }

    fn subject(&self, name: &str) -> Result<Option<String>, Failure> {
        let text = self.text(name);
        match &text {
            Some(text) if !is_subject(text) || text.contains(['*', '>']) => {
                Err(invalid(name, "must be a subject without wildcards, such as _INBOX or app.inbox"))
            }
            _ => Ok(text),
        }
    }

    fn api_prefix(&self) -> Result<String, Failure> {
        match (self.subject("apiPrefix")?, self.name("domain")?) {
            (Some(_), Some(_)) => Err(invalid("domain", "and apiPrefix cannot both be set")),
            (Some(prefix), None) => Ok(prefix),
            (None, Some(domain)) => Ok(format!("$JS.{domain}.API")),
            (None, None) => Ok("$JS.API".to_owned()),
        }
    }

    fn login(&self) -> Result<Login, Failure> {
        let secret = |name| self.text(name).map(Secret);
        match (secret("jwt"), secret("seedKey"), secret("token")) {
            (Some(_), None, _) => Err(invalid("seedKey", "is required where jwt is set")),
            (jwt, Some(seed), _) => {
                nkeys::KeyPair::from_seed(&seed.0)
                    .map_err(|_| invalid("seedKey", "is no NATS seed (it begins with SU)"))?;
                Ok(Login::Key { jwt, seed })
            }
            (None, None, Some(token)) => Ok(Login::Token(token)),
            (None, None, None) => Ok(Login::Nobody),
        }
    }

    fn tls(&self) -> Result<Tls, Failure> {
        let (certificate, key) = ("tls_client_cert", "tls_client_key");
        let identity = match (self.pem(certificate)?, self.pem(key)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(invalid(key, "is required where tls_client_cert is set")),
            (None, Some(_)) => return Err(invalid(certificate, "is required where tls_client_key is set")),
        };
        let skip_verify = self.switch("insecureSkipTLSVerify")?;
        Ok(Tls { server_name: None, ca: self.pem("caCert")?, identity, skip_verify })
    }

    /// Dapr's component wants names of files here. There are none in the sandbox.
    fn pem(&self, name: &str) -> Result<Option<String>, Failure> {
        let text = self.text(name);
        match &text {
            Some(text) if !text.contains("-----BEGIN ") => Err(invalid(
                name,
                "must be PEM text, not the name of a file: put the file's content there, or a secret",
            )),
            _ => Ok(text),
        }
    }

    fn start(&self) -> Result<Start, Failure> {
        let policy = self.choice("deliverPolicy", &["all", "last", "new", "sequence", "time"])?;
        let (sequence, time) = (self.number::<u64>("startSequence", 0)?, self.number::<u64>("startTime", 0)?);
        match (policy, sequence.filter(|sequence| *sequence > 0), time) {
            (Some("last"), ..) => Ok(Start::Last),
            (Some("new"), ..) => Ok(Start::New),
            (Some("sequence"), Some(sequence), _) => Ok(Start::Sequence(sequence)),
            (Some("sequence"), None, _) => Err(invalid("startSequence", "is required where deliverPolicy is sequence")),
            (Some("time"), _, Some(time)) => rfc3339(time).map(Start::Time),
            (Some("time"), _, None) => Err(invalid("startTime", "is required where deliverPolicy is time")),
            _ => Ok(Start::All),
        }
    }

    fn terms(&self, dapr: bool) -> Result<Terms, Failure> {
        let ack_wait = self.duration("ackWait")?;
        if ack_wait.is_some_and(|wait| wait < ACK_WAIT_MIN) {
            return Err(invalid("ackWait", &format!("must be at least {ACK_WAIT_MIN:?}")));
        }
        // Instances are bounded one by one, by their credit. A bound for all of them together would stop the group while
        // what a lost connection held waits for its lease to run out.
        let unbounded = Some(-1).filter(|_| !dapr);
        Ok(Terms {
            ack_wait,
            max_deliver: self.number("maxDeliver", -1)?.filter(|count| *count != 0),
            back_off: self.back_off()?,
            max_ack_pending: self.number("maxAckPending", -1)?.filter(|count| *count != 0).or(unbounded),
            replicas: self.number("replicas", 0)?.filter(|count| *count > 0),
            memory_storage: self.switch("memoryStorage")?,
        })
    }

    fn back_off(&self) -> Result<Vec<Duration>, Failure> {
        let text = self.text("backOff").unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parse = |part| properties::duration(part).filter(|wait| *wait >= ACK_WAIT_MIN);
        parts
            .map(|part| {
                parse(part).ok_or_else(|| invalid("backOff", "must be a list of durations such as 1s, 5s, 30s"))
            })
            .collect()
    }

    fn creation(&self) -> Result<Option<Creation>, Failure> {
        let subjects = self.text("streamSubjects").unwrap_or_default();
        let subjects = subjects.split(',').map(str::trim).filter(|subject| !subject.is_empty());
        let creation = Creation {
            subjects: subjects.map(str::to_owned).collect(),
            replicas: self.number("streamReplicas", 1)?.unwrap_or(1),
            memory: self.choice("streamStorage", &["file", "memory"])? == Some("memory"),
            max_age: self.duration("streamMaxAge")?.unwrap_or_default(),
            max_bytes: self.number("streamMaxBytes", -1)?.unwrap_or(-1),
            max_messages: self.number("streamMaxMessages", -1)?.unwrap_or(-1),
            duplicate_window: self.duration("streamDuplicateWindow")?,
            refuse_new: self.choice("streamDiscard", &["old", "new"])? == Some("new"),
        };
        if creation.subjects.iter().any(|subject| !is_subject(subject)) {
            return Err(invalid("streamSubjects", "must be a list of subjects such as orders, orders.>"));
        }
        let asked = self.choice("streamCreate", &["off", "auto"])? == Some("auto");
        match (self.text("streamName").is_some(), creation.subjects.is_empty()) {
            _ if !asked => Ok(None),
            (true, true) => {
                Err(invalid("streamSubjects", "is required where streamCreate is auto and streamName is set"))
            }
            (false, false) => Err(invalid("streamName", "is required where streamSubjects is set")),
            _ => Ok(Some(creation)),
        }
    }

    /// Settings of Dapr's component that mean nothing here must still be what they are said to be.
    fn check_ignored(&self) -> Result<(), Failure> {
        if let Some(policy @ ("all" | "none")) = self.choice("ackPolicy", &["explicit", "all", "none"])? {
            log::warn(&format!("metadata ackPolicy {policy} would lose messages: explicit is used"));
        }
        if self.text("queueGroupName").is_some() && self.text("durableName").is_none() {
            log::warn("metadata queueGroupName is ignored without durableName: replicas share the group of their app");
        }
        self.switch("flowControl")?;
        self.number::<u64>("rateLimit", 0)?;
        Ok(())
    }

    fn deduplication(&self, dapr: bool) -> Result<Deduplication, Failure> {
        Ok(match self.choice("publishDeduplication", &["event", "id", "off"])? {
            Some("off") => Deduplication::Off,
            Some("id") => Deduplication::Id,
            Some(_) => Deduplication::Event,
            None if dapr => Deduplication::Id,
            None => Deduplication::Event,
        })
    }

    /// Dapr documents one name and reads the other.
    fn concurrency(&self, dapr: bool) -> Result<Option<usize>, Failure> {
        let modes = ["single", "parallel"];
        let mode = self.choice("concurrency", &modes)?.or(self.choice("concurrencyMode", &modes)?);
        Ok(match mode {
            Some("single") => Some(1),
            None if dapr => Some(1),
            _ => None,
        })
    }
}

pub(crate) const A_NAME: &str = "a name without spaces, dots, *, >, / or \\";

/// Whether the broker takes it as the name of a stream or consumer.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 256
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\'))
}

/// Whether the broker takes it as a subject, perhaps with wildcards.
fn is_subject(text: &str) -> bool {
    let token = |token: &str| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
    let mut tokens = text.split('.').rev();
    tokens.next().is_some_and(token) && tokens.all(|other| token(other) && other != ">")
}

fn rfc3339(seconds: u64) -> Result<String, Failure> {
    /// The year 9999, as far as the format goes.
    const SECONDS_MAX: u64 = 253_402_300_799;
    if seconds > SECONDS_MAX {
        return Err(invalid("startTime", "must be a time in seconds since 1970"));
    }
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests;
