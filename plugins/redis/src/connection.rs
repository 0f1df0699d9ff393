//! One connection: made, authenticated, and not yet divided among those who write and read it.
//!
//! Called by `pipe` for the main connection and by `fetch` for the blocking ones, both of which reconnect by themselves.

use std::cell::Cell;
use std::time::Duration;

use whimbrel_sdk::net::{self, NetError, Reader, Writer};
use whimbrel_sdk::{Failure, timer};

use crate::config::Settings;
use crate::failure::{code, of_credentials};
use crate::protocol::{Decoder, Parsed, Reply, command};

/// Why the last reply could not be had, for people.
pub(crate) type Why = String;

/// A connection that is ready for commands.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) decoder: Decoder,
    /// What the server calls this connection; none if the user may not ask.
    pub(crate) client_id: Option<u64>,
}

/// Connects and authenticates. `name` is how the connection shows up in the server's list of clients.
///
/// # Errors
/// `Invalid` and `Unauthorized` name the setting; any other may pass.
pub(crate) async fn dial(settings: &Settings, name: &str, patience: Duration) -> Result<Link, Failure> {
    let patience = patience.min(settings.dial_wait);
    let dialling = async {
        let connected = net::connect(&settings.host, settings.port, settings.tls.as_ref()).await;
        let (reader, writer) = connected.map_err(of_net)?;
        let mut link = Link { reader, writer, decoder: Decoder::default(), client_id: None };
        greet(&mut link, settings, name).await?;
        Ok(link)
    };
    let slow = || {
        Failure::Transient({
            let tls =
                if settings.tls.is_some() { "; does it speak TLS on this port (metadata enableTLS)?" } else { "" };
            let Settings { host, port, .. } = settings;
            format!("{host}:{port}: no answer to the greeting within {patience:?} (metadata dialTimeout){tls}")
        })
    };
    timer::timeout(patience, dialling).await.unwrap_or_else(|| Err(slow()))
}

fn of_net(error: NetError) -> Failure {
    match error {
        NetError::Denied(_) => Failure::Invalid(format!("metadata redisHost: {error}")),
        NetError::Tls(_) => {
            Failure::Transient(format!("metadata caCert, clientCert, clientKey, redisHost (the name in it): {error}"))
        }
        other => Failure::Transient(other.to_string()),
    }
}

/// Says who we are, in one write.
async fn greet(link: &mut Link, settings: &Settings, name: &str) -> Result<(), Failure> {
    let mut out = Vec::new();
    let mut steps = Vec::new();
    if let Some(password) = &settings.password {
        let user = settings.username.as_deref().map(str::as_bytes);
        let parts: Vec<&[u8]> =
            [Some(b"AUTH".as_slice()), user, Some(password.0.as_bytes())].into_iter().flatten().collect();
        command(&mut out, &parts);
        steps.push(Step::Auth);
    }
    if settings.database != 0 {
        command(&mut out, &[b"SELECT", settings.database.to_string().as_bytes()]);
        steps.push(Step::Select);
    }
    command(&mut out, &[b"CLIENT", b"SETNAME", spelled(name).as_bytes()]);
    steps.push(Step::Name);
    command(&mut out, &[b"CLIENT", b"ID"]);
    steps.push(Step::Id);
    command(&mut out, &[b"PING"]);
    steps.push(Step::Ping);
    // A certificate of ours that is missing, or refused, shows only now.
    let lost = |why| match settings.tls {
        None => Failure::Transient(why),
        Some(_) => {
            Failure::Transient(format!("the server ended the TLS connection (metadata clientCert, clientKey): {why}"))
        }
    };
    link.send(out).await.map_err(lost)?;
    for step in steps {
        let parsed = link.next().await.map_err(lost)?;
        let reply = link.decoder.reply(&parsed);
        let id = step.check(reply)?;
        link.client_id = link.client_id.or(id);
    }
    Ok(())
}

/// Client names may not have spaces or line ends.
fn spelled(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Auth,
    Select,
    Name,
    Id,
    Ping,
}

impl Step {
    /// The connection's id, if that was asked.
    fn check(self, reply: Reply<'_>) -> Result<Option<u64>, Failure> {
        let Some(error) = reply.error() else {
            return Ok(reply.integer().filter(|_| self == Self::Id).and_then(|id| u64::try_from(id).ok()));
        };
        let credentials = of_credentials(error);
        match self {
            _ if credentials => Err(Failure::Unauthorized(format!(
                "metadata redisUsername, redisPassword: Redis does not accept them: {error}"
            ))),
            Self::Select => Err(Failure::Invalid(format!("metadata redisDB: {error}"))),
            // A user who may not ask for these can still do everything else.
            _ if code(error) == "NOPERM" => Ok(None),
            // A server that is still loading answers this to everything.
            _ => Err(Failure::Transient(error.to_owned())),
        }
    }
}

impl Link {
    /// Writes.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Why> {
        self.writer.write_all(bytes).await.map_err(|error| error.to_string())
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// The connection is gone, or its peer speaks something else.
    pub(crate) async fn next(&mut self) -> Result<Parsed, Why> {
        next(&mut self.reader, &mut self.decoder).await
    }
}

/// Reads one reply.
///
/// # Errors
/// As for [`Link::next`].
pub(crate) async fn next(reader: &mut Reader, decoder: &mut Decoder) -> Result<Parsed, Why> {
    loop {
        if let Some(parsed) = decoder.next().map_err(|malformed| malformed.to_string())? {
            return Ok(parsed);
        }
        reader.read(decoder.room()).await.map_err(|error| error.to_string())?;
    }
}

/// How a connection gets on, for whoever watches that it does.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Whether a reply is awaited.
    pub(crate) waiting: Cell<bool>,
    /// Replies so far.
    pub(crate) replies: Cell<u64>,
}

impl Progress {
    /// Counts a reply.
    pub(crate) fn one_more(&self) {
        self.replies.set(self.replies.get().wrapping_add(1));
    }

    /// Returns when nothing came for a whole period in which something was awaited. `quiet` is called after each period
    /// in which nothing was awaited and nothing came.
    pub(crate) async fn watch(&self, period: Duration, mut quiet: impl FnMut()) -> Why {
        let (mut replies, mut waited) = (self.replies.get(), false);
        loop {
            timer::sleep(period).await;
            let (now, waiting) = (self.replies.get(), self.waiting.get());
            if now == replies && waited && waiting {
                return format!("no answer for {period:?}");
            }
            if now == replies && !waiting {
                quiet();
            }
            (replies, waited) = (now, waiting);
        }
    }
}
